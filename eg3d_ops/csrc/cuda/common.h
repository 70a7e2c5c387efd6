// Definitions shared by bindings (which include torch), launchers (which include CUDA) and kernels.
#pragma once

#if defined(__CUDACC__)
#define EG3D_BOTH __host__ __device__
#else
#define EG3D_BOTH
#endif

namespace eg3d {

enum class ElementType { float16, bfloat16, float32, float64 };

}  // namespace eg3d

// Element types of the kernels: the types they compute in, conversions, and loads of several elements at once.
//
// The code here and in the *_kernel.cuh files is plain CUDA without host headers, so that nvcc, NVRTC and the emulator
// of the tests can all compile it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace eg3d {

// The type to compute in. 16-bit types only store values.
template <class T>
struct Compute {
  typedef float type;
};
template <>
struct Compute<double> {
  typedef double type;
};

__device__ inline float widen(float v) { return v; }
__device__ inline double widen(double v) { return v; }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ inline T narrow(typename Compute<T>::type v) {
  return v;
}
template <>
__device__ inline __half narrow<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// N elements that are moved by one load or store.
template <class T, int N>
struct alignas(sizeof(T) * N) Chunk {
  T at[N];
};

// The number of elements that one thread moves at once: 16 bytes.
template <class T>
struct Width {
  static constexpr int value = 16 / sizeof(T);
};

// Loads four neighbouring numbers as float. `p` must be aligned to the size of all four.
template <class T>
__device__ inline float4 load4(const T* p) {
  const Chunk<T, 4> c = *reinterpret_cast<const Chunk<T, 4>*>(p);
  return make_float4(widen(c.at[0]), widen(c.at[1]), widen(c.at[2]), widen(c.at[3]));
}

// The same names for both precisions, so that the argument's type determines the precision.
__device__ inline float exp_of(float x) { return expf(x); }
__device__ inline double exp_of(double x) { return exp(x); }
__device__ inline float expm1_of(float x) { return expm1f(x); }
__device__ inline double expm1_of(double x) { return expm1(x); }
__device__ inline float log1p_of(float x) { return log1pf(x); }
__device__ inline double log1p_of(double x) { return log1p(x); }
__device__ inline float tanh_of(float x) { return tanhf(x); }
__device__ inline double tanh_of(double x) { return tanh(x); }
__device__ inline float abs_of(float x) { return fabsf(x); }
__device__ inline double abs_of(double x) { return fabs(x); }

}  // namespace eg3d

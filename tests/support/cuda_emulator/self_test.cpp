// A kernel with and without the mistakes that the emulator must detect.
#include <cuda_runtime.h>

extern __shared__ float4 eg3d_shared[];

namespace {

enum Mistake { none, no_barrier, divided_barrier, too_little_shared };

// Each thread passes its index to its left neighbour; thread 0 passes it to the last thread.
__global__ void pass_left(Mistake mistake, float* out) {
  float* const shared = reinterpret_cast<float*>(eg3d_shared);
  const int i = threadIdx.x, n = blockDim.x;
  shared[i] = i;
  if (mistake == divided_barrier && i == 5)
    __syncthreads();
  else if (mistake != no_barrier)
    __syncthreads();
  out[i] = shared[(i + 1) % n];
}

}  // namespace

// Runs the kernel on 64 floats. Returns the error message, or null.
extern "C" __attribute__((visibility("default"))) const char* emulator_self_test(Mistake mistake, float* out) {
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(64);
  config.dynamicSmemBytes = mistake == too_little_shared ? 128 : 256;
  cudaLaunchKernelEx(&config, pass_left, mistake, out);
  return cudaGetLastError() == cudaSuccess ? nullptr : cudaGetErrorString(1);
}

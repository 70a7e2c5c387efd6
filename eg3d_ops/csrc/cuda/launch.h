// Launches kernels from the host. No torch header is included, so nvcc takes seconds instead of minutes.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "common.h"
#include "numeric.cuh"

namespace eg3d {

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error("eg3d_ops (CUDA): " + message); }

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const std::string message = cudaGetErrorString(error);
  cudaGetLastError();  // clears the error; otherwise the next launch would report it
  fail(std::string(what) + ": " + message);
}

// Launches one kernel. `name` is its name in error messages. `shared` is in bytes; more than 48 KB must first be
// allowed with allow_shared.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, void* stream,
            const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  check(cudaGetLastError(), name);
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

// Lets `kernel` use `bytes` of shared memory per block.
template <class Kernel>
void allow_shared(const char* name, Kernel* kernel, size_t bytes) {
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (bytes > (size_t)most)
    fail(std::string(name) + " needs " + std::to_string(bytes) + " bytes of shared memory per block, this device has " +
         std::to_string(most) + "; use impl='reference'");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), name);
}

// Returns the number of blocks that fill the device once. Each block then takes further work until none is left.
template <class Kernel>
int resident_blocks(const char* name, Kernel* kernel, int threads, size_t shared) {
  int per_processor = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, threads, shared), name);
  if (per_processor == 0) fail(std::string(name) + ": a block does not fit this device");
  return per_processor * device_attribute(cudaDevAttrMultiProcessorCount);
}

// Calls `run` with a zero of the element type: `with_element(type, [&](auto zero) { using T = decltype(zero); ... })`.
template <class Run>
void with_element(ElementType type, const Run& run) {
  switch (type) {
    case ElementType::float16:
      return run(__half{});
    case ElementType::bfloat16:
      return run(__nv_bfloat16{});
    case ElementType::float32:
      return run(float{});
    case ElementType::float64:
      return run(double{});
  }
}

}  // namespace eg3d

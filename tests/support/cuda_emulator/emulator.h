// Lets a host compiler build the unchanged CUDA sources, and runs their blocks on the CPU.
//
// The threads of a block are fibers. Each runs alone until it has to wait for others: at a barrier, a shuffle or a
// vote. A run is therefore deterministic. The order of the threads can be reversed: code that reads what another thread
// writes, with no barrier in between, then gives another result. Shared memory holds NaN at the start of each block.
// Only what the kernels use is supported, and only full masks.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__  // dynamic shared memory only: eg3d_shared is one array, for one block at a time
#define __launch_bounds__(...)

using std::max;
using std::min;

// ----- Built-in types and variables ---------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// ----- Fibers -------------------------------------------------------------------------------------------

namespace emulator {

enum class Scope { warp, block };

// Waits until all threads of the warp or block have called this from the same line. Returns the values of all of them;
// the first is that of the warp's or block's thread 0.
const uint32_t* exchange(Scope scope, uint32_t value, int line);
unsigned thread_of_block();
void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()>& body);

template <class To, class From>
To bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "32-bit values only");
  To to;
  std::memcpy(&to, &v, sizeof(to));
  return to;
}

template <class T>
T shuffle(T v, int from, int line) {
  return bits<T>(exchange(Scope::warp, bits<uint32_t>(v), line)[from]);
}
inline int lane() { return thread_of_block() % 32; }

}  // namespace emulator

// The default argument is the line of the call.
#define EMULATOR_LINE int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_LINE) { emulator::exchange(emulator::Scope::block, 0, line); }
inline void __syncwarp(EMULATOR_LINE) { emulator::exchange(emulator::Scope::warp, 0, line); }
int __syncthreads_or(int predicate, EMULATOR_LINE);
unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_LINE);

template <class T>
T __shfl_sync(unsigned, T v, int from, EMULATOR_LINE) {
  return emulator::shuffle(v, from % 32, line);
}
template <class T>
T __shfl_up_sync(unsigned, T v, int delta, EMULATOR_LINE) {
  const int lane = emulator::lane();
  return emulator::shuffle(v, lane - delta < 0 ? lane : lane - delta, line);
}
template <class T>
T __shfl_down_sync(unsigned, T v, int delta, EMULATOR_LINE) {
  const int lane = emulator::lane();
  return emulator::shuffle(v, lane + delta > 31 ? lane : lane + delta, line);
}
template <class T>
T __shfl_xor_sync(unsigned, T v, int mask, EMULATOR_LINE) {
  return emulator::shuffle(v, emulator::lane() ^ mask, line);
}

// ----- Intrinsics ---------------------------------------------------------------------------------------

inline float atomicAdd(float* at, float v) {
  const float old = *at;
  *at = old + v;
  return old;
}
inline unsigned long long atomicMin(unsigned long long* at, unsigned long long v) {
  const unsigned long long old = *at;
  *at = v < old ? v : old;
  return old;
}
// The fast intrinsics are as wrong as CUDA's programming guide allows; each input always has the same error.
float __expf(float x);
float __logf(float x);
float __fdividef(float a, float b);
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(unsigned v) { return v == 0 ? 32 : __builtin_clz(v); }
inline int __float_as_int(float v) { return emulator::bits<int>(v); }
inline int __float2int_rd(float v) {  // rounds down, saturates; NaN gives 0
  if (v != v) return 0;
  if (v >= 2147483648.f) return INT32_MAX;
  return v < -2147483648.f ? INT32_MIN : static_cast<int>(std::floor(v));
}

// ----- 16-bit floats ------------------------------------------------------------------------------------

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
float __half2float(__half v);
__half __float2half_rn(float v);
float __bfloat162float(__nv_bfloat16 v);
__nv_bfloat16 __float2bfloat16_rn(float v);

// ----- Run time -----------------------------------------------------------------------------------------

typedef int cudaError_t;
typedef void* cudaStream_t;
constexpr cudaError_t cudaSuccess = 0;
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t emulator_allow_shared(const void* kernel, int bytes);

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return emulator_allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const auto body = [&] { kernel(Parameters(arguments)...); };
  emulator::run_grid(reinterpret_cast<const void*>(kernel), c->gridDim, c->blockDim, c->dynamicSmemBytes, body);
  return cudaSuccess;  // cudaGetLastError reports errors
}

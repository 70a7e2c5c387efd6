// Converts planes between torch's order [N, P, C, H, W] and the renderer's [N, P, H, W, texel], in which the channels
// of a texel are adjacent and a warp reads them at once. A block moves 32 texels of one plane through shared memory, so
// that reads and writes are both coalesced.
#pragma once

#include "numeric.cuh"
#include "render.h"

extern __shared__ float4 eg3d_shared[];

namespace eg3d {

constexpr int kPackRows = 8;                    // a block has 32 x 8 threads
constexpr int kPackRow = kMaxChannels + 1;      // floats per texel in shared memory: odd, to avoid bank conflicts
constexpr int kPackShared = 32 * kPackRow * 4;  // bytes

// Distances in memory, in elements, between neighbours along the axes of [N, P, C, H, W].
struct PlaneStrides {
  long long at[5];
};

template <class T>
__global__ void __launch_bounds__(32 * kPackRows)
    pack_planes_kernel(PlaneSizes size, PlaneStrides stride, const T* __restrict__ planes, T* __restrict__ packed) {
  float* const tile = reinterpret_cast<float*>(eg3d_shared);
  const int texels = size.height * size.width, texel = texel_size(size.channels), plane = blockIdx.y;
  const int first = blockIdx.x * 32, last = min(first + 32, texels), here = first + threadIdx.x;
  const T* const source = planes + plane / size.planes * stride.at[0] + plane % size.planes * stride.at[1];
  for (int c = threadIdx.y; c < texel; c += kPackRows) {
    const long long at = here / size.width * stride.at[3] + here % size.width * stride.at[4] + c * stride.at[2];
    tile[threadIdx.x * kPackRow + c] = here < last && c < size.channels ? widen(source[at]) : 0.f;
  }
  __syncthreads();
  T* const target = packed + ((long long)plane * texels + first) * texel;
  for (int i = threadIdx.y * 32 + threadIdx.x; i < (last - first) * texel; i += 32 * kPackRows)
    target[i] = narrow<T>(tile[i / texel * kPackRow + i % texel]);
}

__global__ void __launch_bounds__(32 * kPackRows)
    unpack_planes_kernel(PlaneSizes size, const float* __restrict__ packed, float* __restrict__ planes) {
  float* const tile = reinterpret_cast<float*>(eg3d_shared);
  const int texels = size.height * size.width, texel = texel_size(size.channels), plane = blockIdx.y;
  const int first = blockIdx.x * 32, last = min(first + 32, texels), here = first + threadIdx.x;
  const float* const source = packed + ((long long)plane * texels + first) * texel;
  for (int i = threadIdx.y * 32 + threadIdx.x; i < (last - first) * texel; i += 32 * kPackRows)
    tile[i / texel * kPackRow + i % texel] = source[i];
  __syncthreads();
  if (here >= last) return;
  for (int c = threadIdx.y; c < size.channels; c += kPackRows)
    planes[((long long)plane * size.channels + c) * texels + here] = tile[threadIdx.x * kPackRow + c];
}

}  // namespace eg3d

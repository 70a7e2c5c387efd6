// Computations of one warp along one ray: transmittance, importance sampling, sorting. Samples are in shared memory.
#pragma once

#include "render_tile.cuh"

namespace eg3d {

// Samples behind a transmittance of at most this value change every output by less than the rounding of float32.
constexpr float kOpaque = 1e-9f;

// ----- Across the lanes ---------------------------------------------------------------------------------

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kAll, v, offset);
  return v;
}

// scan_sum and scan_product return the sum and the product of the values of this lane and all lanes below.
__device__ inline float scan_sum(float v) {
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float below = __shfl_up_sync(kAll, v, offset);
    if (lane_index() >= offset) v += below;
  }
  return v;
}

__device__ inline float scan_product(float v) {
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float below = __shfl_up_sync(kAll, v, offset);
    if (lane_index() >= offset) v *= below;
  }
  return v;
}

// Returns the larger number. Unlike fmaxf, it propagates NaN.
__device__ inline float larger(float a, float b) { return a > b || a != a ? a : b; }

// ----- Marching -----------------------------------------------------------------------------------------

// Interval k of a ray, from sample k to sample k + 1.
struct Interval {
  float length, depth, density;  // density in the middle, minus 1
  float passed;                  // fraction of the light that passes: exp(-softplus(density) * length)
  float alpha;                   // 1 - passed
};

__device__ inline Interval interval(const float* depths, const float* densities, int k) {
  Interval v;
  v.length = depths[k + 1] - depths[k];
  v.depth = (depths[k] + depths[k + 1]) / 2;
  v.density = (densities[k] + densities[k + 1]) / 2 - 1;
  const float s = v.density > 20 ? v.density : log1pf(expf(v.density));
  v.passed = expf(-s * v.length);
  v.alpha = 1 - v.passed;
  return v;
}

// Computes weights[k] of the count - 1 intervals and, if `before` is not null, the transmittance before each. Ends with
// a warp barrier.
__device__ inline void march(const float* depths, const float* densities, int count, float* weights, float* before) {
  float carried = 1;
  for (int base = 0; base < count - 1; base += 32) {
    const int k = base + lane_index();
    const bool real = k < count - 1;
    const float alpha = real ? interval(depths, densities, k).alpha : 0.f;
    const float through = scan_product(1 - alpha + 1e-10f);
    const float above = __shfl_up_sync(kAll, through, 1);
    const float t = carried * (lane_index() == 0 ? 1.f : above);
    carried *= __shfl_sync(kAll, through, 31);
    if (real) weights[k] = alpha * t;
    if (real && before) before[k] = t;
  }
  __syncwarp();
}

// Returns half the sum of the values of intervals k - 1 and k: each interval contributes equally to its two ends.
__device__ inline float at_sample(const float* per_interval, int k, int count) {
  return ((k > 0 ? per_interval[k - 1] : 0.f) + (k < count - 1 ? per_interval[k] : 0.f)) / 2;
}

// ----- Importance sampling ------------------------------------------------------------------------------

// Returns smoothed weight i between coarse samples. The first and the last weight are dropped.
__device__ inline float smooth_weight(const float* weights, int i) {
  return (larger(weights[i], weights[i + 1]) + larger(weights[i + 1], weights[i + 2])) / 2 + 0.01f + 1e-5f;
}

// Computes cdf[0 ... coarse - 3] of the smoothed weights. Ends with a warp barrier.
__device__ inline void cumulate(const float* weights, int coarse, float* cdf) {
  const int bins = coarse - 3;
  float total = 0;
  for (int i = lane_index(); i < bins; i += 32) total += smooth_weight(weights, i);
  total = warp_sum(total);
  if (lane_index() == 0) cdf[0] = 0;
  float carried = 0;
  for (int base = 0; base < bins; base += 32) {
    const int i = base + lane_index();
    const float sum = carried + scan_sum(i < bins ? smooth_weight(weights, i) / total : 0.f);
    carried = __shfl_sync(kAll, sum, 31);
    if (i < bins) cdf[i + 1] = sum;
  }
  __syncwarp();
}

// Returns the depth at which the cdf reaches u. The knots of the cdf are the midpoints of the first intervals.
__device__ inline float invert(const float* cdf, const float* depths, int coarse, float u) {
  const int bins = coarse - 3;
  int low = 0, high = bins + 1;  // the number of knots <= u is in low ... high
  while (low < high) {
    const int middle = (low + high) / 2;
    if (!(cdf[middle] > u))
      low = middle + 1;
    else
      high = middle;
  }
  const int below = max(low - 1, 0), above = min(low, bins);
  const float start = (depths[below] + depths[below + 1]) / 2, end = (depths[above] + depths[above + 1]) / 2;
  float step = cdf[above] - cdf[below];
  if (step < 1e-5f) step = 1;
  return start + (u - cdf[below]) / step * (end - start);
}

// ----- Sorting ------------------------------------------------------------------------------------------

// Returns an integer with the order of the float. NaN has a place in this order too, because every sample needs a rank
// of its own.
__device__ inline int sort_key(float v) {
  const int bits = __float_as_int(v);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}

// Sorts by rank: for each sample, a lane counts the samples before it. For the hundred samples of a ray this costs
// little compared with decoding them. It assumes nothing about their order, because random draws are unsorted.
__device__ inline void sort_samples(const float* depths, const float* densities, int count, float* sorted_depths,
                                    float* sorted_densities) {
  __syncwarp();
  for (int i = lane_index(); i < count; i += 32) {
    const int key = sort_key(depths[i]);
    int rank = 0;
    for (int j = 0; j < count; ++j) {
      const int other = sort_key(depths[j]);
      rank += other < key || (other == key && j < i);
    }
    sorted_depths[rank] = depths[i];
    sorted_densities[rank] = densities[i];
  }
  __syncwarp();
}

}  // namespace eg3d

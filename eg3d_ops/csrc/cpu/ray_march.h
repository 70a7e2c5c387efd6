// Computations along one ray: the depths of samples, their weights, and the gradients of densities from those of
// weights.
//
// Arrays have at least K elements rounded up to whole vectors. Elements beyond K are computed and ignored.
#pragma once

#include "render.h"
#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

constexpr float kNoLight = 1e-9f;  // below this transmittance, 96 samples cannot change a float of magnitude 1

// Places sample k at the fraction (k + u) / (S - 1) of [near, far]; with disparity, evenly in 1/depth.
EG3D_INLINE void coarse_depths(const RenderForward& a, int64_t ray, float* depths) {
  const float near = a.near[ray], far = a.far[ray];
  const float* draws = a.coarse_draws ? a.coarse_draws + ray * a.coarse : nullptr;
  for (int k = 0; k < a.coarse; ++k) {
    const float fraction = ((float)k + (draws ? draws[k] : 0.5f)) / (float)(a.coarse - 1);
    depths[k] = a.disparity ? 1.f / ((1.f - fraction) / near + fraction / far) : near + (far - near) * fraction;
  }
}

struct Interval {  // arrays over the intervals; interval k is between samples k and k + 1
  float* weight;   // alpha_k T_k
  float* passed;   // T_k: transmittance before the interval
  float* alpha;    // 1 - exp(-s_k delta_k)
  float* decay;    // exp(-s_k delta_k)
  float* middle;   // (density_k + density_{k+1}) / 2 - 1
};

// Computes the weights of the count - 1 intervals between `count` samples of ascending depth.
EG3D_INLINE void march(const float* densities, const float* depths, int count, const Interval& out) {
  for (int k = 0; k < count - 1; k += VL) {
    const vf middle = (load(densities + k) + load(densities + k + 1)) * 0.5f - 1.f;
    const vf decay = vexp(-vsoftplus(middle) * (load(depths + k + 1) - load(depths + k)));
    store(out.middle + k, middle);
    store(out.decay + k, decay);
    store(out.alpha + k, 1.f - decay);
  }
  float passed = 1.f;
  for (int k = 0; k < count - 1; ++k) {
    out.passed[k] = passed;
    out.weight[k] = out.alpha[k] * passed;
    passed *= 1.f - out.alpha[k] + 1e-10f;
  }
}

EG3D_INLINE void insertion_sort(float* values, int* order, int count) {
  for (int i = 1; i < count; ++i) {
    const float value = values[i];
    const int tag = order[i];
    int j = i;
    for (; j > 0 && values[j - 1] > value; --j) values[j] = values[j - 1], order[j] = order[j - 1];
    values[j] = value, order[j] = tag;
  }
}

// Draws depths from the smoothed weights of the S - 1 coarse intervals. `cdf`: scratch [S].
EG3D_INLINE void importance_depths(const float* depths, const float* weight, int coarse, const float* draws, int fine,
                                   float* cdf, float* out) {
  const int bins = coarse - 3;  // the first and the last weight are dropped
  const auto widened = [&](int i) { return weight[i - 1] < weight[i] ? weight[i] : weight[i - 1]; };
  float total = 0.f;
  for (int i = 0; i < bins; ++i) {
    cdf[i] = total;
    total += (widened(i + 1) + widened(i + 2)) * 0.5f + 0.01f + 1e-5f;
  }
  cdf[bins] = total;
  for (int i = 0; i <= bins; ++i) cdf[i] /= total;
  for (int j = 0; j < fine; ++j) {
    const float u = draws ? draws[j] : ((float)j + 0.5f) / (float)fine;
    int low = 0, high = bins + 1;  // search for the first entry greater than u
    while (low < high) {
      const int centre = (low + high) / 2;
      if (cdf[centre] > u)
        high = centre;
      else
        low = centre + 1;
    }
    const int below = low > 0 ? low - 1 : 0, above = low < bins ? low : bins;
    const float step = cdf[above] - cdf[below];
    const float at_below = (depths[below] + depths[below + 1]) * 0.5f;
    const float at_above = (depths[above] + depths[above + 1]) * 0.5f;
    out[j] = at_below + (u - cdf[below]) / (step < 1e-5f ? 1.f : step) * (at_above - at_below);
  }
}

// Merges coarse and fine samples by depth. `order[k]` is 0..S-1 for a coarse sample and S.. for a fine one. `scratch`
// and `tags` have room for all samples. Without fine samples, the coarse ones keep their order: as in the released
// models, a ray with far before near is sorted only if it has fine samples.
EG3D_INLINE void merge(const float* coarse, int num_coarse, const float* fine, int num_fine, float* depths, int* order,
                       float* scratch, int* tags) {
  const int total = num_coarse + num_fine;
  for (int k = 0; k < num_coarse; ++k) scratch[k] = coarse[k];
  for (int k = 0; k < num_fine; ++k) scratch[num_coarse + k] = fine[k];
  for (int k = 0; k < total; ++k) tags[k] = k;
  if (num_fine > 0) insertion_sort(scratch, tags, num_coarse);  // both lists are already sorted unless draws are random
  insertion_sort(scratch + num_coarse, tags + num_coarse, num_fine);
  int i = 0, j = num_coarse;
  for (int k = 0; k < total; ++k) {
    const bool take_fine = i == num_coarse || (j < total && scratch[j] < scratch[i]);
    const int from = take_fine ? j++ : i++;
    depths[k] = scratch[from], order[k] = tags[from];
  }
}

// Computes d_density[k] of the samples from d_weight[k] of the intervals. Overwrites `m.decay`.
EG3D_INLINE void march_backward(const Interval& m, const float* depths, int count, const float* d_weight,
                                float* d_density) {
  for (int k = 0; k < count - 1; k += VL) {  // derivative of alpha with respect to the density at either end
    const vf delta = load(depths + k + 1) - load(depths + k);
    store(m.decay + k, load(m.decay + k) * delta * vsigmoid(load(m.middle + k)) * 0.5f);
  }
  float later = 0.f;   // sum over j > k of weight_j d_weight_j
  float d_next = 0.f;  // what interval k + 1 contributed to each of its two ends
  for (int k = count - 2; k >= 0; --k) {
    const float d_alpha = m.passed[k] * d_weight[k] - later / (1.f - m.alpha[k] + 1e-10f);
    later += m.weight[k] * d_weight[k];
    const float d_end = d_alpha * m.decay[k];
    d_density[k + 1] = d_next + d_end;
    d_next = d_end;
  }
  d_density[0] = d_next;
}

}  // namespace EG3D_ISA
}  // namespace eg3d

// Forward pass of the renderer. One warp processes a ray from its coarse samples to its sums. Of all values per sample,
// only the depths leave the warp; the backward pass starts from them.
#pragma once

#include "render_march.cuh"

namespace eg3d {

constexpr int kForwardWarps = 8;

// Shared memory of a warp: a tile, and four numbers per sample.
EG3D_BOTH inline constexpr int forward_samples(int samples) { return (samples + 31) / 32 * 32; }
EG3D_BOTH inline constexpr int forward_floats(int samples) { return kTileFloats + 4 * forward_samples(samples); }

// Returns the depth of coarse sample k of a ray.
__device__ inline float coarse_depth(const RenderForward& p, long long ray, int k) {
  const float near = p.near[ray], far = p.far[ray];
  const float draw = p.coarse_draws ? p.coarse_draws[ray * p.coarse + k] : 0.5f;
  const float fraction = (k + draw) / (p.coarse - 1);
  if (p.disparity) return 1 / ((1 - fraction) / near + fraction / far);
  return near + (far - near) * fraction;
}

// Computes the densities of samples [begin, end). Ends with a warp barrier.
template <class T>
__device__ inline void evaluate_densities(const Scene& s, const Decoder& decoder, const T* planes, const Ray& ray,
                                          const float* depths, int begin, int end, float* tile, float* densities) {
  __syncwarp();
  for (int base = begin; base < end; base += kTile) {
    const int count = min(kTile, end - base), lane = lane_index();
    lookup(s, planes, ray, lane < count ? depths[base + lane] : 0.f, count, tile);
    float features[kTile];
    load_row(tile, lane, features);
    const float density = decode_density(decoder, features);
    if (lane < count) densities[base + lane] = density;
  }
  __syncwarp();
}

// Returns the sum of weighted colours; lane c returns colour c. Samples with negligible weight are left out; `kept`
// lists the others.
template <class T>
__device__ inline float sum_colors(const Scene& s, const Decoder& decoder, const T* planes, const Ray& ray,
                                   const float* depths, const float* weights, int count, float* tile, int* kept) {
  const int lane = lane_index();
  int num_kept = 0;
  for (int base = 0; base < count; base += 32) {
    const int k = base + lane;
    // NaN is kept. The absolute value is needed because weights are negative where a ray's end lies before its start.
    const bool keep = k < count && !(fabsf(at_sample(weights, k, count)) <= kOpaque);
    const unsigned mask = __ballot_sync(kAll, keep);
    if (keep) kept[num_kept + __popc(mask & ((1u << lane) - 1))] = k;
    num_kept += __popc(mask);
  }
  __syncwarp();
  float sum = 0;
  for (int base = 0; base < num_kept; base += kTile) {
    const int here = min(kTile, num_kept - base);
    const int k = lane < here ? kept[base + lane] : 0;
    lookup(s, planes, ray, depths[k], here, tile);
    float features[kTile], logits[kTile];
    load_row(tile, lane, features);
    decode(decoder, features, logits);
    const float weight = at_sample(weights, k, count);
    // Weighted colours overwrite the features without a barrier, because so far each lane reads and writes only its own
    // row.
#pragma unroll
    for (int c = 0; c < kTile; ++c) tile[lane * kRow + c] = weight * color_of(logits[c]);
    __syncwarp();
    for (int row = 0; row < here; ++row) sum += tile[row * kRow + lane];
  }
  return sum;
}

// Computes the fine depths [coarse, coarse + fine) from the densities of the coarse samples; `weights` and `cdf` are
// scratch.
__device__ inline void place_fine(const RenderForward& p, long long ray, float* depths, const float* densities,
                                  float* weights, float* cdf) {
  march(depths, densities, p.coarse, weights, nullptr);
  cumulate(weights, p.coarse, cdf);
  for (int j = lane_index(); j < p.fine; j += 32) {
    const float draw = p.fine_draws ? p.fine_draws[ray * p.fine + j] : (j + 0.5f) / p.fine;
    depths[p.coarse + j] = invert(cdf, depths, p.coarse, draw);
  }
}

template <class T>
__device__ inline void render_ray(const RenderForward& p, const Decoder& decoder, const T* planes, long long index,
                                  float* scratch) {
  const Scene& s = p.scene;
  const int lane = lane_index(), samples = p.coarse + p.fine, stride = forward_samples(samples);
  float *tile = scratch, *depths = tile + kTileFloats, *densities = depths + stride;
  float *spare = densities + stride, *spare_too = spare + stride;
  const Ray ray = load_ray(s, index);

  for (int k = lane; k < p.coarse; k += 32) depths[k] = coarse_depth(p, index, k);
  evaluate_densities(s, decoder, planes, ray, depths, 0, p.coarse, tile, densities);
  if (p.fine > 0) {
    place_fine(p, index, depths, densities, spare, spare_too);
    evaluate_densities(s, decoder, planes, ray, depths, p.coarse, samples, tile, densities);
    sort_samples(depths, densities, samples, spare, spare_too);
    float *t = depths, *d = densities;
    depths = spare, densities = spare_too, spare = t, spare_too = d;
  }
  float* const weights = spare;
  march(depths, densities, samples, weights, nullptr);

  float depth = 0, weight = 0;
  for (int k = lane; k < samples; k += 32) {
    p.depths[index * samples + k] = depths[k];
    if (k == samples - 1) continue;
    weight += weights[k];
    depth += weights[k] * (depths[k] + depths[k + 1]) / 2;
  }
  depth = warp_sum(depth), weight = warp_sum(weight);
  const float color = sum_colors(s, decoder, planes, ray, depths, weights, samples, tile, (int*)spare_too);
  if (lane < s.colors) p.color[index * s.colors + lane] = color;
  if (lane == 0) p.depth[index] = depth, p.weight[index] = weight;
  __syncwarp();  // the next ray uses the same scratch
}

// Shared memory: the decoder, then the scratch of each warp.
template <class T>
__global__ void __launch_bounds__(32 * kForwardWarps, 2) render_forward_kernel(RenderForward p, const T* planes) {
  float* const shared = reinterpret_cast<float*>(eg3d_shared);
  const int hidden = padded_hidden(p.scene.hidden), warps = blockDim.x / 32;
  const Decoder decoder = load_decoder(p.scene, hidden, shared);
  float* const scratch = shared + decoder_floats(p.scene.hidden) + warp_index() * forward_floats(p.coarse + p.fine);
  const long long first = (long long)blockIdx.x * warps + warp_index(), step = (long long)gridDim.x * warps;
  for (long long ray = first; ray < p.scene.rays; ray += step) render_ray(p, decoder, planes, ray, scratch);
}

}  // namespace eg3d

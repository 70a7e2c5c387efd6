// Backward pass of the renderer. It starts from the depths of the forward pass and recomputes everything else.
//
// A warp processes one ray at a time, in two parts. First it evaluates all samples and marches back along the ray,
// which gives the gradient of every density. Then it goes through the samples again, tile by tile, and backpropagates
// through the decoder to the planes. In this second part all warps of a block run in step, because the gradients of the
// weights are small matrix products over the samples of all their tiles. Each of these gradients is summed in shared
// memory by one fixed warp, and over the blocks by sum_partials_kernel. They are deterministic for a given number of
// blocks, which depends on the device and the sizes. The gradient of the planes is not deterministic, because the order
// of atomic additions varies.
#pragma once

#include "render_march.cuh"

namespace eg3d {

constexpr int kBackwardWarps = 4;
constexpr int kUnits = 2 * kBackwardWarps;  // hidden units at a time; each warp sums the gradients of two
constexpr int kUnitRow = 12;                // floats per sample of `before` and `after`; few bank conflicts
static_assert(kUnits == 8, "padded_hidden");

// Shared memory of a warp.
struct Scratch {
  float* features;                   // tile
  float* outputs;                    // tile: gradients of the logits; column 32: of the density
  float* before;                     // [32][kUnitRow]: gradients of kUnits hidden units before softplus
  float* after;                      // [32][kUnitRow]: the values of these units after softplus
  float *depths, *weights, *middle;  // per sample
  float *densities, *along_color;    // per sample; they use the memory of `outputs` before it is needed
  float* d_color;                    // [32]
};

EG3D_BOTH inline constexpr int backward_samples(int samples) { return (samples + 31) / 32 * 32; }
EG3D_BOTH inline constexpr int backward_warp_floats(int samples) {
  return 2 * kTileFloats + 2 * kTile * kUnitRow + 3 * backward_samples(samples) + kTile;
}
EG3D_BOTH inline constexpr int decoder_sums_floats(int hidden) { return padded_hidden(hidden) * (2 * kTile + 2); }
EG3D_BOTH inline constexpr int backward_floats(int hidden, int samples) {
  return decoder_floats(hidden) + decoder_sums_floats(hidden) + kBackwardWarps * backward_warp_floats(samples);
}
static_assert(2 * kMaxSamples <= kTileFloats, "densities and along_color fit a tile");
static_assert(backward_floats(kMaxHidden, kMaxSamples) * 4 <= 96 * 1024, "the largest case fits a V100");

__device__ inline Scratch scratch_of_warp(float* shared, int samples, int warp) {
  const int stride = backward_samples(samples);
  Scratch s;
  s.features = shared + warp * backward_warp_floats(samples);
  s.outputs = s.features + kTileFloats;
  s.before = s.outputs + kTileFloats;
  s.after = s.before + kTile * kUnitRow;
  s.depths = s.after + kTile * kUnitRow;
  s.weights = s.depths + stride;
  s.middle = s.weights + stride;
  s.d_color = s.middle + stride;
  s.densities = s.outputs;
  s.along_color = s.outputs + stride;
  return s;
}

// Gradients of the decoder, summed by one block in shared memory, with the layout of Decoder.
struct DecoderSums {
  float *w1, *w2, *b1, *density;
};

// ----- First part: gradients of densities ---------------------------------------------------------------

// Computes the density of every sample, and the dot product of its colour with the gradient of the ray's colour.
template <class T>
__device__ inline void evaluate_ray(const Scene& scene, const Decoder& decoder, const T* planes, const Ray& ray,
                                    int samples, const Scratch& s) {
  const int lane = lane_index();
  for (int base = 0; base < samples; base += kTile) {
    const int count = min(kTile, samples - base);
    lookup(scene, planes, ray, lane < count ? s.depths[base + lane] : 0.f, count, s.features);
    float features[kTile], logits[kTile];
    load_row(s.features, lane, features);
    const float density = decode(decoder, features, logits);
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kTile; ++c) sum += s.d_color[c] * color_of(logits[c]);
    if (lane < count) s.densities[base + lane] = density, s.along_color[base + lane] = sum;
  }
  __syncwarp();
}

// Returns the number of samples up to the last one that light reaches. s.middle holds the transmittance before each
// interval.
__device__ inline int lit_samples(int samples, const Scratch& s) {
  int lit = 0;
  for (int base = 0; base < samples; base += 32) {
    const int k = base + lane_index();
    const bool reached = k < samples && !(s.middle[k > 0 ? k - 1 : 0] <= kOpaque);  // NaN counts as reached
    const unsigned mask = __ballot_sync(kAll, reached);
    if (mask) lit = base + 32 - __clz(mask);
  }
  return lit;
}

// Replaces the transmittance in s.middle by the gradient of each interval's density. With w = alpha T,
//   d alpha_k = T_k dw_k - (sum over j > k of w_j dw_j) / (1 - alpha_k).
__device__ inline void march_back(int samples, float d_depth, float d_weight, const Scratch& s) {
  const int lane = lane_index(), intervals = samples - 1;
  float behind_chunk = 0;
  for (int base = (intervals - 1) / 32 * 32; base >= 0; base -= 32) {
    const int k = base + lane;
    const bool real = k < intervals;
    Interval v{};
    float dw = 0;
    if (real) {
      v = interval(s.depths, s.densities, k);
      dw = (s.along_color[k] + s.along_color[k + 1]) / 2 + d_depth * v.depth + d_weight;
    }
    float here_and_behind = real ? s.weights[k] * dw : 0.f;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const float above = __shfl_down_sync(kAll, here_and_behind, offset);
      if (lane + offset < 32) here_and_behind += above;
    }
    const float next = __shfl_down_sync(kAll, here_and_behind, 1);
    const float behind = behind_chunk + (lane < 31 ? next : 0.f);
    behind_chunk += __shfl_sync(kAll, here_and_behind, 0);
    if (!real) continue;
    const float d_alpha = s.middle[k] * dw - behind / (1 - v.alpha + 1e-10f);
    s.middle[k] = d_alpha * v.length * v.passed / (1 + expf(-v.density));
  }
  __syncwarp();
}

// Runs the first part. Returns how many samples, counted from the front, receive a gradient.
template <class T>
__device__ inline int density_gradients(const RenderBackward& p, const Decoder& decoder, const T* planes,
                                        const Ray& ray, long long index, const Scratch& s) {
  const int lane = lane_index();
  for (int k = lane; k < p.samples; k += 32) s.depths[k] = p.depths[index * p.samples + k];
  s.d_color[lane] = lane < p.scene.colors ? p.d_color[index * p.scene.colors + lane] : 0.f;
  __syncwarp();
  evaluate_ray(p.scene, decoder, planes, ray, p.samples, s);
  march(s.depths, s.densities, p.samples, s.weights, s.middle);
  const int lit = lit_samples(p.samples, s);
  __syncwarp();  // all lanes have read the transmittances
  march_back(p.samples, p.d_depth[index], p.d_weight[index], s);
  return lit;
}

// ----- Second part: through the decoder -----------------------------------------------------------------

// Computes the gradients of the logits of this lane's sample, whose colour has weight `weight`. They are zero beyond
// the last colour, because s.d_color is zero there.
__device__ inline void logit_gradients(const Decoder& decoder, const float (&features)[kTile], float weight,
                                       const Scratch& s, float (&d_logits)[kTile]) {
  decode(decoder, features, d_logits);
#pragma unroll
  for (int c = 0; c < kTile; ++c) {
    const float value = fast_sigmoid(d_logits[c]);
    d_logits[c] = s.d_color[c] * weight * kColorScale * value * (1 - value);
    s.outputs[lane_index() * kRow + c] = d_logits[c];
  }
}

// Processes kUnits hidden units from `first` on: writes the factors of their weights' gradients to s, and adds to the
// gradient of the features.
__device__ inline void hidden_gradients(const Decoder& d, int first, const float (&features)[kTile], float d_density,
                                        const float (&d_logits)[kTile], const Scratch& s, float (&d_features)[kTile]) {
  float* const before = s.before + lane_index() * kUnitRow;
  float* const after = s.after + lane_index() * kUnitRow;
  for (int i = 0; i < kUnits; ++i) {
    const int j = first + i;
    const Hidden h = hidden_unit(d, j, features);
    const float gradient = (d.density[j] * d_density + dot_row(d.w2 + j * kTile, d_logits)) * h.slope;
    add_row(d.w1 + j * kTile, gradient, d_features);
    before[i] = gradient;
    after[i] = h.value;
  }
}

// Adds the contributions of all warps' samples to the gradients of the two units that this warp owns. A lane is a
// channel of the first layer and a colour of the second.
__device__ inline void add_weight_gradients(const DecoderSums& sums, int first, float* scratch, int samples) {
  const int lane = lane_index(), unit = 2 * warp_index();
  float w1[2] = {0, 0}, w2[2] = {0, 0}, b1[2] = {0, 0}, density[2] = {0, 0};
  for (int warp = 0; warp < kBackwardWarps; ++warp) {
    const Scratch s = scratch_of_warp(scratch, samples, warp);
    for (int row = 0; row < kTile; ++row) {
      const float feature = s.features[row * kRow + lane], output = s.outputs[row * kRow + lane];
      const float2 before = *reinterpret_cast<const float2*>(s.before + row * kUnitRow + unit);
      const float2 after = *reinterpret_cast<const float2*>(s.after + row * kUnitRow + unit);
      w1[0] += before.x * feature, w1[1] += before.y * feature;
      w2[0] += after.x * output, w2[1] += after.y * output;
    }
    for (int i = 0; i < 2; ++i) {  // here a lane is a sample
      b1[i] += s.before[lane * kUnitRow + unit + i];
      density[i] += s.after[lane * kUnitRow + unit + i] * s.outputs[lane * kRow + kTile];
    }
  }
  for (int i = 0; i < 2; ++i) {
    const int j = first + unit + i;
    sums.w1[j * kTile + lane] += w1[i];
    sums.w2[j * kTile + lane] += w2[i];
    const float bias_sum = warp_sum(b1[i]), density_sum = warp_sum(density[i]);
    if (lane == 0) sums.b1[j] += bias_sum, sums.density[j] += density_sum;
  }
}

// Adds the gradients of the features, which are the rows of `tile`, to the gradients of the planes. A lane is a
// channel.
__device__ inline void scatter(const RenderBackward& p, const Ray& ray, float depth, int count, const float* tile) {
  const Scene& s = p.scene;
  const int texel = texel_size(s.size.channels), lane = lane_index();
  const long long plane_size = (long long)s.size.height * s.size.width * texel;
  float* const item = p.d_planes + ray.item * s.size.planes * plane_size + lane;
  const float share = 1.f / s.size.planes;
  for (int sample = 0; sample < count; ++sample) {
    const float here = __shfl_sync(kAll, depth, sample);
    const float gradient = tile[sample * kRow + lane] * share;
    if (lane >= s.size.channels) continue;
    for (int plane = 0; plane < s.size.planes; ++plane) {
      const Corners c = corners(s, ray, here, plane);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (c.offset[k] >= 0) atomicAdd(item + plane * plane_size + c.offset[k], c.weight[k] * gradient);
    }
  }
}

struct OutputSums {
  float color, density;  // gradients of the last biases: of colour `lane`, and this lane's part of density
};

// Processes one tile of samples from `base` on, in step with the other warps. Only the first `lit` samples of the ray
// receive gradients.
template <class T>
__device__ inline void tile_gradients(const RenderBackward& p, const Decoder& decoder, const DecoderSums& sums,
                                      const T* planes, const Ray& ray, int base, int lit, float* scratch,
                                      OutputSums& biases) {
  const Scratch s = scratch_of_warp(scratch, p.samples, warp_index());
  const int lane = lane_index(), count = max(0, min(kTile, lit - base)), k = base + lane;
  const bool real = lane < count;
  const float depth = real ? s.depths[k] : 0.f;
  const float d_density = real ? at_sample(s.middle, k, p.samples) : 0.f;
  const float weight = real ? at_sample(s.weights, k, p.samples) : 0.f;

  lookup(p.scene, planes, ray, depth, count, s.features);
  float features[kTile], d_logits[kTile], d_features[kTile] = {};
  load_row(s.features, lane, features);
  logit_gradients(decoder, features, weight, s, d_logits);
  s.outputs[lane * kRow + kTile] = d_density;
  biases.density += d_density;
  __syncwarp();
  for (int row = 0; row < count; ++row) biases.color += s.outputs[row * kRow + lane];

  for (int first = 0; first < decoder.hidden; first += kUnits) {
    hidden_gradients(decoder, first, features, d_density, d_logits, s, d_features);
    __syncthreads();
    add_weight_gradients(sums, first, scratch, p.samples);
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < kTile; ++c) s.features[lane * kRow + c] = d_features[c];
  __syncwarp();
  scatter(p, ray, depth, count, s.features);
}

// ----- Kernels ------------------------------------------------------------------------------------------

// Returns number i of a block's gradients: d_w1, d_b1, d_w2, d_b2 one after another, without the padding.
__device__ inline float block_share(const Scene& s, const DecoderSums& sums, const float* output_sums, int i) {
  const int channels = s.size.channels, hidden = s.hidden;
  if (i < hidden * channels) return sums.w1[i / channels * kTile + i % channels];
  i -= hidden * channels;
  if (i < hidden) return sums.b1[i];
  i -= hidden;
  if (i < hidden) return sums.density[i];
  i -= hidden;
  if (i < s.colors * hidden) return sums.w2[i % hidden * kTile + i / hidden];
  i -= s.colors * hidden;
  float sum = 0;
  for (int warp = 0; warp < kBackwardWarps; ++warp) sum += output_sums[warp * kRow + (i == 0 ? kTile : i - 1)];
  return sum;
}

// Shared memory: the decoder, sums of its gradients, then the scratch of each warp.
template <class T>
__global__ void __launch_bounds__(32 * kBackwardWarps) render_backward_kernel(RenderBackward p, const T* planes) {
  const Scene& scene = p.scene;
  const int hidden = padded_hidden(scene.hidden), warp = warp_index(), lane = lane_index();
  float* const shared = reinterpret_cast<float*>(eg3d_shared);
  float* const gathered = shared + decoder_floats(scene.hidden);
  float* const scratch = gathered + decoder_sums_floats(scene.hidden);
  const DecoderSums sums{gathered, gathered + hidden * kTile, gathered + 2 * hidden * kTile,
                         gathered + 2 * hidden * kTile + hidden};
  for (int i = threadIdx.x; i < decoder_sums_floats(scene.hidden); i += blockDim.x) gathered[i] = 0;
  const Decoder decoder = load_decoder(scene, hidden, shared);
  const Scratch own = scratch_of_warp(scratch, p.samples, warp);

  OutputSums biases{0, 0};
  const long long step = (long long)gridDim.x * kBackwardWarps;
  for (long long first = (long long)blockIdx.x * kBackwardWarps; first < scene.rays; first += step) {
    const long long index = first + warp;
    const bool real = index < scene.rays;
    const Ray ray = load_ray(scene, real ? index : first);
    own.d_color[lane] = 0;
    const int lit = real ? density_gradients(p, decoder, planes, ray, index, own) : 0;
    for (int base = 0; __syncthreads_or(base < lit); base += kTile)
      tile_gradients(p, decoder, sums, planes, ray, base, lit, scratch, biases);
  }

  float* const output_sums = scratch;  // [warps][colours, density]; free again, because the loop ended at a barrier
  const float density = warp_sum(biases.density);
  output_sums[warp * kRow + lane] = biases.color;
  if (lane == 0) output_sums[warp * kRow + kTile] = density;
  __syncthreads();
  const int parameters = (int)decoder_parameters(scene);
  for (int i = threadIdx.x; i < parameters; i += blockDim.x)
    p.partials[(long long)blockIdx.x * parameters + i] = block_share(scene, sums, output_sums, i);
}

// Sums the gradients of all blocks. Each thread sums one number.
__global__ void __launch_bounds__(256) sum_partials_kernel(Scene s, int blocks, const float* partials, float* d_w1,
                                                           float* d_b1, float* d_w2, float* d_b2) {
  const int parameters = (int)decoder_parameters(s);
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= parameters) return;
  float sum = 0;
  for (int block = 0; block < blocks; ++block) sum += partials[(long long)block * parameters + i];
  const int sizes[4] = {s.hidden * s.size.channels, s.hidden, (1 + s.colors) * s.hidden, 1 + s.colors};
  float* const targets[4] = {d_w1, d_b1, d_w2, d_b2};
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    if (i >= 0 && i < sizes[part]) targets[part][i] = sum;
    i -= sizes[part];
  }
}

}  // namespace eg3d

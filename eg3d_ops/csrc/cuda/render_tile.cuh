// A tile is 32 samples of one ray, processed by one warp. In the feature lookup, a lane is four channels of a sample,
// so that reads of a texel are coalesced. In the decoder, a lane is a sample. In between, features are in shared
// memory.
#pragma once

#include "numeric.cuh"
#include "render.h"

extern __shared__ float4 eg3d_shared[];

namespace eg3d {

constexpr unsigned kAll = 0xffffffffu;  // every lane takes part
constexpr int kTile = 32;               // samples of a tile, lanes of a warp
constexpr int kRow = 33;                // floats per row of a tile: odd, so that columns have no bank conflicts
constexpr int kTileFloats = kTile * kRow;
static_assert(kMaxChannels == kTile && kMaxColors == kTile, "a lane for each channel and each colour");

__device__ inline int lane_index() { return threadIdx.x % 32; }
__device__ inline int warp_index() { return threadIdx.x / 32; }

// ----- Decoder ------------------------------------------------------------------------------------------

// The decoder in shared memory, padded with zeros to 32 channels, 32 colours and a multiple of 8 hidden units. The
// outgoing weights of a padded unit are zero.
struct Decoder {
  int hidden;
  float density_bias;
  const float* w1;       // [hidden][32]
  const float* w2;       // [hidden][32], colours only
  const float* b1;       // [hidden]
  const float* density;  // [hidden], the row of the second layer for the density
  const float* b2;       // [32], colours only
};

EG3D_BOTH inline constexpr int padded_hidden(int hidden) { return (hidden + 7) / 8 * 8; }
EG3D_BOTH inline constexpr int decoder_floats(int hidden) { return padded_hidden(hidden) * (2 * kTile + 2) + kTile; }

// Loads the decoder into shared memory. All threads of a block must call it; it ends with a block barrier.
__device__ inline Decoder load_decoder(const Scene& s, int hidden, float* shared) {
  float *w1 = shared, *w2 = w1 + hidden * kTile, *b1 = w2 + hidden * kTile;
  float *density = b1 + hidden, *b2 = density + hidden;
  for (int i = threadIdx.x; i < hidden * kTile; i += blockDim.x) {
    const int j = i / kTile, c = i % kTile;
    w1[i] = j < s.hidden && c < s.size.channels ? s.w1[j * s.size.channels + c] : 0.f;
    w2[i] = j < s.hidden && c < s.colors ? s.w2[(1 + c) * s.hidden + j] : 0.f;
  }
  for (int j = threadIdx.x; j < hidden; j += blockDim.x) {
    b1[j] = j < s.hidden ? s.b1[j] : 0.f;
    density[j] = j < s.hidden ? s.w2[j] : 0.f;
  }
  for (int c = threadIdx.x; c < kTile; c += blockDim.x) b2[c] = c < s.colors ? s.b2[1 + c] : 0.f;
  __syncthreads();
  return {hidden, s.b2[0], w1, w2, b1, density, b2};
}

// All lanes read the same row of weights at once, four numbers at a time.
__device__ inline float dot_row(const float* row, const float (&v)[kTile]) {
  float4 sum = make_float4(0, 0, 0, 0);  // four short chains of additions instead of one long chain
#pragma unroll
  for (int i = 0; i < kTile; i += 4) {
    const float4 w = *reinterpret_cast<const float4*>(row + i);
    sum.x += w.x * v[i], sum.y += w.y * v[i + 1], sum.z += w.z * v[i + 2], sum.w += w.w * v[i + 3];
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

__device__ inline void add_row(const float* row, float factor, float (&sum)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; i += 4) {
    const float4 w = *reinterpret_cast<const float4*>(row + i);
    sum[i] += w.x * factor, sum[i + 1] += w.y * factor, sum[i + 2] += w.z * factor, sum[i + 3] += w.w * factor;
  }
}

// softplus and its derivative. The fast intrinsics are wrong by at most 4e-7 here. This is less than the rounding error
// summed over the units of a layer.
struct Hidden {
  float value, slope;
};

__device__ inline Hidden hidden_unit(const Decoder& d, int j, const float (&features)[kTile]) {
  const float x = d.b1[j] + dot_row(d.w1 + j * kTile, features);
  const float e = __expf(-fabsf(x)), r = __fdividef(1.f, 1.f + e);
  return {(x < 0 ? 0.f : x) + __logf(1.f + e), x < 0 ? e * r : r};
}

__device__ inline float decode_density(const Decoder& d, const float (&features)[kTile]) {
  float density = d.density_bias;
  for (int j = 0; j < d.hidden; ++j) density += d.density[j] * hidden_unit(d, j, features).value;
  return density;
}

// Returns the density, and writes the logits of the colours. Hidden units are used one by one and never stored.
__device__ inline float decode(const Decoder& d, const float (&features)[kTile], float (&logits)[kTile]) {
  float density = d.density_bias;
#pragma unroll
  for (int c = 0; c < kTile; ++c) logits[c] = d.b2[c];
  for (int j = 0; j < d.hidden; ++j) {
    const float h = hidden_unit(d, j, features).value;
    density += d.density[j] * h;
    add_row(d.w2 + j * kTile, h, logits);
  }
  return density;
}

__device__ inline float fast_sigmoid(float x) {
  const float e = __expf(-fabsf(x)), r = __fdividef(1.f, 1.f + e);
  return x < 0 ? e * r : r;
}

constexpr float kColorScale = 1.002f;  // slightly wider than [0, 1], so that 0 and 1 are reached at finite inputs

__device__ inline float color_of(float logit) { return fast_sigmoid(logit) * kColorScale - 0.001f; }

// ----- Plane lookup -------------------------------------------------------------------------------------

struct Ray {
  float origin[3], direction[3];
  int item;  // index in the batch
};

__device__ inline Ray load_ray(const Scene& s, long long index) {
  Ray ray;
#pragma unroll
  for (int i = 0; i < 3; ++i) ray.origin[i] = s.origins[3 * index + i], ray.direction[i] = s.directions[3 * index + i];
  ray.item = (int)(index / s.rays_per_item);
  return ray;
}

// The four texels around a point of a plane. Offset -1 means outside, where everything is zero.
struct Corners {
  int offset[4];
  float weight[4];
};

// Selects by comparison, because an index into an array in registers would move the array to local memory.
__device__ inline float along(const float (&v)[3], int axis) { return axis == 0 ? v[0] : axis == 1 ? v[1] : v[2]; }

__device__ inline Corners corners(const Scene& s, const Ray& ray, float depth, int plane) {
  const int width = s.size.width, height = s.size.height, texel = texel_size(s.size.channels);
  const int axis_u = s.axes[2 * plane], axis_v = s.axes[2 * plane + 1];
  const float u = (along(ray.origin, axis_u) + depth * along(ray.direction, axis_u)) * s.scale;
  const float v = (along(ray.origin, axis_v) + depth * along(ray.direction, axis_v)) * s.scale;
  const float x = ((u + 1) * width - 1) / 2, y = ((v + 1) * height - 1) / 2;
  const int x0 = __float2int_rd(x), y0 = __float2int_rd(y);  // saturates far outside
  const float right = x - (float)x0, low = y - (float)y0;
  Corners c;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned xi = (unsigned)x0 + i % 2, yi = (unsigned)y0 + i / 2;
    c.offset[i] = xi < (unsigned)width && yi < (unsigned)height ? (int)(yi * width + xi) * texel : -1;
    c.weight[i] = (i % 2 ? right : 1 - right) * (i / 2 ? low : 1 - low);
  }
  return c;
}

// Writes the mean features of the first `count` samples of a tile into `tile`, and zeros for the others. `depth` is the
// depth of this lane's own sample. Ends with a warp barrier.
template <class T>
__device__ inline void lookup(const Scene& s, const T* planes, const Ray& ray, float depth, int count, float* tile) {
  const int texel = texel_size(s.size.channels), channel = lane_index() % 8 * 4;
  const long long plane_size = (long long)s.size.height * s.size.width * texel;
  const T* const item = planes + ray.item * s.size.planes * plane_size + channel;
  const float share = 1.f / s.size.planes;
  __syncwarp();  // other lanes may still be reading the tile
  for (int i = 0; i < kTile; i += 4) {
    const int sample = i + lane_index() / 8;
    const float here = __shfl_sync(kAll, depth, sample);
    float4 sum = make_float4(0, 0, 0, 0);
    if (sample < count && channel < texel)
      for (int plane = 0; plane < s.size.planes; ++plane) {
        const Corners c = corners(s, ray, here, plane);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (c.offset[k] < 0) continue;
          const float4 f = load4(item + plane * plane_size + c.offset[k]);
          sum.x += c.weight[k] * f.x, sum.y += c.weight[k] * f.y;
          sum.z += c.weight[k] * f.z, sum.w += c.weight[k] * f.w;
        }
      }
    float* const row = tile + sample * kRow + channel;
    row[0] = sum.x * share, row[1] = sum.y * share, row[2] = sum.z * share, row[3] = sum.w * share;
  }
  __syncwarp();
}

__device__ inline void load_row(const float* tile, int row, float (&to)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; ++i) to[i] = tile[row * kRow + i];
}

}  // namespace eg3d

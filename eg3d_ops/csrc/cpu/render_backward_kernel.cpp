// Backward pass of the renderer. `blocks` recomputes tiles of rays and writes feature gradients; `scatter` adds them to
// the gradients of the planes.
#include "gemm.h"
#include "lookup.h"
#include "ray_march.h"
#include "render.h"
#include "scratch.h"

namespace eg3d {
namespace EG3D_ISA {

struct DecoderGradient {
  float *w1, *b1, *w2_density, *w2_color_t, *b2_color, *b2_density;

  DecoderGradient(const RenderBackward& a, int64_t block) {
    const int64_t hp = a.size.hidden_p;
    w1 = a.d_decoder + block * a.decoder_size();
    b1 = w1 + hp * a.size.channels_p;
    w2_density = b1 + hp;
    w2_color_t = w2_density + hp;
    b2_color = w2_color_t + hp * a.size.colors_p;
    b2_density = b2_color + a.size.colors_p;
  }
};

EG3D_INLINE void add_scaled(float* sum, float factor, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += VL) store(sum + i, load(sum + i) + factor * load(x + i));
}

// The rows of a tile are all samples of its rays, each ray by ascending depth. Samples that light reaches are `live`.
// They are the first ones of a ray, and only they receive gradients.
struct BackwardTile {
  const RenderBackward& a;
  const RenderSizes& size;
  Scratch scratch;
  float *features, *hidden, *slopes, *d_hidden, *d_out;  // [rows, C_p], 3 x [rows, Hd_p], [rows, Co_p]
  float *densities, *depths, *mean_weight, *shade, *d_density;
  float *d_color, *d_weight;
  int* ray_of;
  const float **rows_a, **columns_a;
  Interval interval;  // of all rays of the tile

  static int64_t floats(const RenderSizes& size) {
    const int64_t per_row = size.channels_p + 3 * size.hidden_p + size.colors_p + 5 + 1 + 2;
    return per_row * size.row_stride() + size.rays_per_tile * (5 * size.ray_stride() + size.colors_p) +
           size.ray_stride() + 2 * size.hidden_p;
  }

  explicit BackwardTile(const RenderBackward& args) : a(args), size(args.size), scratch(floats(args.size)) {
    const int64_t rows = size.row_stride();
    features = scratch.take(rows * size.channels_p);
    float** const per_hidden[] = {&hidden, &slopes, &d_hidden};
    for (float** piece : per_hidden) *piece = scratch.take(rows * size.hidden_p);
    d_out = scratch.take(rows * size.colors_p);
    float** const per_row[] = {&densities, &depths, &mean_weight, &shade, &d_density};
    for (float** piece : per_row) *piece = scratch.take(rows);
    ray_of = scratch.take<int>(rows);
    rows_a = scratch.take<const float*>(2 * rows);
    float** const per_interval[] = {&interval.weight, &interval.passed, &interval.alpha, &interval.decay,
                                    &interval.middle};
    for (float** piece : per_interval) *piece = scratch.take(size.rays_per_tile * size.ray_stride());
    d_color = scratch.take(size.rays_per_tile * size.colors_p);
    d_weight = scratch.take(size.ray_stride());
    columns_a = scratch.take<const float*>(2 * size.hidden_p);
  }

  Interval interval_of(int ray) const {
    const int64_t at = ray * size.ray_stride();
    return {interval.weight + at, interval.passed + at, interval.alpha + at, interval.decay + at, interval.middle + at};
  }

  // Layer 1: computes hidden units, their slopes and densities of all rows.
  void decode(int rows) {
    const PackedDecoder& d = a.decoder;
    const int hp = size.hidden_p;
    for (int r = 0; r < rows; ++r) rows_a[r] = features + r * size.channels_p, densities[r] = d.b2_density;
    gemm(rows, hp, size.channels, rows_a, 1, d.w1_t, hp, [&](int row, int column, const auto& sum) {
      vf density = {};
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) {
        const int64_t at = (int64_t)row * hp + column + j * VL;
        const vf z = sum[j] + load(d.b1 + column + j * VL);
        const vf e = vexp(-vabs(z));
        const vf h = (z < 0.f ? vf{} : z) + vlog1p_unit(e);
        store(hidden + at, h);
        store(slopes + at, (z < 0.f ? e : splat(1.f)) / (1.f + e));
        density += h * load(d.w2_density + column + j * VL);
      }
      densities[row] += horizontal_sum(density);
    });
  }

  // Marches along ray `local` and appends its live samples. Returns the new number of live samples.
  int find_live(int local, int live, int* sample) {
    const int k_all = size.samples;
    const Interval m = interval_of(local);
    march(densities + local * k_all, depths + local * k_all, k_all, m);
    float before = 0.f;
    for (int k = 0; k < k_all; ++k) {
      if (k > 0 && m.passed[k - 1] < kNoLight) break;
      const float w = k < k_all - 1 ? m.weight[k] : 0.f;
      mean_weight[live] = (before + w) * 0.5f;
      before = w;
      ray_of[live] = local;
      sample[live++] = local * k_all + k;
    }
    return live;
  }

  // Layer 2 of the live rows: computes the gradient of its output, and d_color . color of every sample.
  void shade_backward(int live, const int* sample) {
    const PackedDecoder& d = a.decoder;
    const int op = size.colors_p;
    for (int r = 0; r < live; ++r) rows_a[r] = hidden + (int64_t)sample[r] * size.hidden_p, shade[r] = 0.f;
    gemm(live, op, size.hidden, rows_a, 1, d.w2_color_t, op, [&](int row, int column, const auto& sum) {
      const float* d_ray = d_color + ray_of[row] * op + column;
      vf dot = {};
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) {
        const vf s = vsigmoid(sum[j] + load(d.b2_color + column + j * VL)), g = load(d_ray + j * VL);
        dot += g * (s * 1.002f - 0.001f);
        store(d_out + (int64_t)row * op + column + j * VL, g * (mean_weight[row] * 1.002f) * s * (1.f - s));
      }
      shade[row] += horizontal_sum(dot);
    });
  }

  // Computes the gradients of interval weights, then of densities, for the ray whose live rows are [begin, end).
  void weight_backward(int local, int64_t ray, int begin, int end) {
    const float* t = depths + local * size.samples;
    const int count = end - begin;
    for (int k = 0; k < count - 1; ++k)
      d_weight[k] = (shade[begin + k] + shade[begin + k + 1]) * 0.5f + a.d_depth[ray] * (t[k] + t[k + 1]) * 0.5f +
                    a.d_weight[ray];
    march_backward(interval_of(local), t, count, d_weight, d_density + begin);
  }

  // Backpropagates the live rows through both layers: writes the features' gradient, adds to the block's decoder
  // gradient.
  void decode_backward(int live, const int* sample, float* d_features, const DecoderGradient& out) {
    const PackedDecoder& d = a.decoder;
    const int cp = size.channels_p, hp = size.hidden_p, op = size.colors_p;
    for (int r = 0; r < live; ++r) rows_a[r] = d_out + (int64_t)r * op;
    gemm(live, hp, size.colors, rows_a, 1, d.w2_color, hp, [&](int row, int column, const auto& sum) {
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) {
        const int at = column + j * VL;
        store(d_hidden + (int64_t)row * hp + at,
              (sum[j] + d_density[row] * load(d.w2_density + at)) * load(slopes + (int64_t)sample[row] * hp + at));
      }
    });
    for (int r = 0; r < live; ++r) rows_a[r] = d_hidden + (int64_t)r * hp;
    gemm(live, cp, size.hidden, rows_a, 1, d.w1, cp, [&](int row, int column, const auto& sum) {
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j)
        store(d_features + (int64_t)row * cp + column + j * VL, sum[j]);
    });

    close_ranks(hidden, hp, live, sample);
    close_ranks(features, cp, live, sample);
    accumulate(hidden, d_out, op, live, out.w2_color_t);
    accumulate(d_hidden, features, cp, live, out.w1);
    for (int r = 0; r < live; ++r) {
      add_scaled(out.b1, 1.f, d_hidden + (int64_t)r * hp, hp);
      add_scaled(out.w2_density, d_density[r], hidden + (int64_t)r * hp, hp);
      add_scaled(out.b2_color, 1.f, d_out + (int64_t)r * op, op);
      out.b2_density[0] += d_density[r];
    }
  }

  // Moves the live rows to the front.
  static void close_ranks(float* rows, int width, int live, const int* sample) {
    for (int r = 0; r < live; ++r)
      if (sample[r] != r)
        for (int i = 0; i < width; i += VL)
          store(rows + (int64_t)r * width + i, load(rows + (int64_t)sample[r] * width + i));
  }

  // Computes out[Hd, width] += x^T y over the live rows, x [live, Hd_p], y [live, width].
  void accumulate(const float* x, const float* y, int width, int live, float* out) {
    for (int i = 0; i < size.hidden; ++i) columns_a[i] = x + i;
    gemm(size.hidden, width, live, columns_a, size.hidden_p, y, width, [&](int row, int column, const auto& sum) {
      float* to = out + (int64_t)row * width + column;
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) store(to + j * VL, load(to + j * VL) + sum[j]);
    });
  }

  void run(int64_t slot, const DecoderGradient& out) {
    const int64_t tile = a.first_tile + slot, rows_stride = size.row_stride();
    const int64_t image = tile / size.tiles_per_image(), start = tile % size.tiles_per_image() * size.rays_per_tile;
    const int rays = (int)(size.rays - start < size.rays_per_tile ? size.rays - start : size.rays_per_tile);
    const auto ray = [&](int i) { return image * size.rays + size.ray_at(start + i); };
    const int k_all = size.samples, corner_count = 4 * size.planes;
    const Corners corners = {a.offsets + slot * corner_count * rows_stride,
                             a.corner_weights + slot * corner_count * rows_stride, rows_stride};
    int* sample = a.sample + slot * rows_stride;
    for (int i = 0; i < rays; ++i) {
      for (int k = 0; k < k_all; ++k) depths[i * k_all + k] = a.depths[ray(i) * k_all + k];
      find_corners(a, ray(i), depths + i * k_all, k_all, i * k_all, corners);
      for (int c = 0; c < size.colors; ++c) d_color[i * size.colors_p + c] = a.d_color[ray(i) * size.colors + c];
    }
    gather(a, image, corners, 0, rays * k_all, features);
    decode(rays * k_all);
    int live = 0;
    for (int i = 0; i < rays; ++i) live = find_live(i, live, sample);
    shade_backward(live, sample);
    for (int begin = 0, end = 0; begin < live; begin = end) {
      while (end < live && ray_of[end] == ray_of[begin]) ++end;
      weight_backward(ray_of[begin], ray(ray_of[begin]), begin, end);
    }
    decode_backward(live, sample, a.d_features + slot * rows_stride * size.channels_p, out);
    a.count[slot] = live;
  }
};

static void blocks(const RenderBackward& a, int64_t begin, int64_t end) {
  BackwardTile tile(a);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * a.tiles_per_block, last = first + a.tiles_per_block;
    const DecoderGradient out(a, block);
    for (int64_t slot = first; slot < last && slot < a.chunk_tiles; ++slot) tile.run(slot, out);
  }
}

// A work unit is one band of one plane and 16 of its channels. It visits all samples of the chunk in order, so every
// texel is summed in the same order for any number of threads and bands.
static void scatter(const RenderBackward& a, int64_t begin, int64_t end) {
  const RenderSizes& size = a.size;
  const int channel_blocks = size.channels_p / kPad, corner_count = 4 * size.planes;
  const int64_t rows = size.row_stride(), texel_row = (int64_t)size.width * size.channels_p;
  const int64_t image = a.first_tile / size.tiles_per_image();
  for (int64_t unit = begin; unit < end; ++unit) {
    const int block = unit % channel_blocks, plane = unit / channel_blocks % size.planes;
    const int band = unit / channel_blocks / size.planes;
    const int64_t low = (plane * size.height + (int64_t)size.height * band / a.bands) * texel_row;
    const int64_t high = (plane * size.height + (int64_t)size.height * (band + 1) / a.bands) * texel_row;
    float* d_planes = a.d_planes + image * size.planes * size.height * texel_row + block * kPad;
    for (int64_t slot = 0; slot < a.chunk_tiles; ++slot) {
      const int* sample = a.sample + slot * rows;
      for (int r = 0; r < a.count[slot]; ++r) {
        const float* d = a.d_features + (slot * rows + r) * size.channels_p + block * kPad;
        for (int c = 4 * plane; c < 4 * plane + 4; ++c) {
          const int64_t entry = (slot * corner_count + c) * rows + sample[r];
          const int32_t offset = a.offsets[entry];
          const float weight = a.corner_weights[entry];
          if (weight != 0.f && offset >= low && offset < high) add_scaled(d_planes + offset, weight, d, kPad);
        }
      }
    }
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(RenderBackwardKernels, render_backward) = {EG3D_ISA::blocks, EG3D_ISA::scatter};

}  // namespace eg3d

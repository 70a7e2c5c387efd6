// Binds the renderer's CPU kernels: packs planes and decoder, and distributes tiles over torch's thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "huge_pages.h"
#include "render.h"
#include "subnormals.h"

namespace eg3d {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor checked(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "eg3d_ops.render_rays (CPU): ", name, " must be float32");
  return torch::stable::contiguous(t);
}

const float* floats(const Tensor& t) { return t.const_data_ptr<float>(); }
float* mutable_floats(const Tensor& t) { return t.mutable_data_ptr<float>(); }

Tensor like(const Tensor& t, std::vector<int64_t> sizes) { return torch::stable::new_empty(t, sizes); }
Tensor zeros_like(const Tensor& t, std::vector<int64_t> sizes) { return torch::stable::new_zeros(t, sizes); }

// Copies one row of a plane, with any strides of channels and columns, to [W, C_p] and zeroes the padding.
void pack_row(const float* from, int64_t channel_step, int64_t column_step, const RenderSizes& size, float* to) {
  const int channels = size.channels, channels_p = size.channels_p;
  for (int x0 = 0; x0 < size.width; x0 += 64) {  // blocks that stay in the cache for either order of reading
    const int x1 = std::min(x0 + 64, size.width);
    if (channel_step == 1) {
      for (int x = x0; x < x1; ++x) std::copy_n(from + x * column_step, channels, to + x * channels_p);
    } else {
      for (int c = 0; c < channels; ++c)
        for (int x = x0; x < x1; ++x) to[x * channels_p + c] = from[c * channel_step + x * column_step];
    }
    for (int x = x0; x < x1; ++x) std::fill(to + x * channels_p + channels, to + (x + 1) * channels_p, 0.f);
  }
}

void unpack_plane(const float* from, int channels, int channels_p, int64_t begin, int64_t end, int64_t pixels,
                  float* to) {
  for (int64_t block = begin; block < end; block += 64) {
    const int64_t stop = std::min(block + 64, end);
    for (int c = 0; c < channels; ++c)
      for (int64_t i = block; i < stop; ++i) to[c * pixels + i] = from[i * channels_p + c];
  }
}

// Runs f(plane, begin, end) over ranges of pixels of all planes.
template <class F>
void for_pixels(int64_t planes, int64_t pixels, const F& f) {
  const int64_t strips = (pixels + 4095) / 4096;
  torch::stable::parallel_for(0, planes * strips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / strips, i % strips * 4096, std::min(i % strips * 4096 + 4096, pixels));
  });
}

// Runs a kernel over work units [0, count) on torch's threads, with subnormal floats as zero. Samples in empty space
// have weights so small that products in the backward pass become subnormal. They change nothing, but took more than
// half of its time in a training on an Intel processor.
template <class Args>
void for_units(int64_t count, int64_t grain, void (*kernel)(const Args&, int64_t, int64_t), const Args& args) {
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    const SubnormalsAsZero mode;
    kernel(args, begin, end);
  });
}

// Returns planes [N, P, C, H, W] as [N, P, H, W, C_p], without a copy if they already have this layout.
Tensor pack_planes(const Tensor& planes, const RenderSizes& size) {
  const auto strides = planes.strides();
  const int64_t c = size.channels, w = size.width, h = size.height;
  if (c == size.channels_p && strides[2] == 1 && strides[4] == c && strides[3] == w * c && strides[1] == h * w * c &&
      (size.batch == 1 || strides[0] == size.planes * h * w * c))
    return planes;
  const Tensor packed = like(planes, {size.batch, size.planes, size.height, size.width, size.channels_p});
  prefer_huge_pages(packed);
  torch::stable::parallel_for(0, size.batch * size.planes * h, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {  // counts the rows of all planes of all images
      const int64_t image = row / h / size.planes, plane = row / h % size.planes, y = row % h;
      const float* from = floats(planes) + image * strides[0] + plane * strides[1] + y * strides[3];
      pack_row(from, strides[2], strides[4], size, mutable_floats(packed) + row * w * size.channels_p);
    }
  });
  return packed;
}

// Decoder weights in every order that the kernels read, in one block of memory.
struct DecoderPack {
  std::vector<float> memory;
  PackedDecoder view{};

  DecoderPack(const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, const RenderSizes& s) {
    const int64_t hp = s.hidden_p, cp = s.channels_p, op = s.colors_p;
    memory.resize(s.channels * hp + 2 * hp + hp * op + op + hp * cp + s.colors * hp + kPad);
    // Aligned to a cache line; otherwise every 64-byte load of a weight would touch two lines.
    float* next = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
    float *w1_t = take(s.channels * hp), *b1_p = take(hp), *density = take(hp), *color_t = take(hp * op);
    float *b2_p = take(op), *w1_p = take(hp * cp), *color = take(s.colors * hp);
    for (int64_t h = 0; h < s.hidden; ++h) {
      for (int64_t c = 0; c < s.channels; ++c) w1_t[c * hp + h] = w1_p[h * cp + c] = floats(w1)[h * s.channels + c];
      for (int64_t o = 0; o < s.colors; ++o)
        color_t[h * op + o] = color[o * hp + h] = floats(w2)[(1 + o) * s.hidden + h];
      b1_p[h] = floats(b1)[h];
      density[h] = floats(w2)[h];
    }
    std::copy_n(floats(b2) + 1, s.colors, b2_p);
    view = {w1_t, b1_p, density, color_t, b2_p, floats(b2)[0], w1_p, color};
  }
};

RenderSizes sizes_of(const Tensor& planes, const Tensor& origins, const Tensor& w1, const Tensor& w2, int64_t samples) {
  const auto p = planes.sizes();
  RenderSizes s{};
  s.batch = p[0], s.rays = origins.sizes()[1];
  s.planes = (int)p[1], s.channels = (int)p[2], s.height = (int)p[3], s.width = (int)p[4];
  s.hidden = (int)w1.sizes()[0], s.colors = (int)w2.sizes()[0] - 1;
  s.channels_p = padded(s.channels), s.hidden_p = padded(s.hidden), s.colors_p = padded(s.colors);
  s.samples = (int)samples;
  s.rays_per_tile = std::max(1, kRowsPerTile / s.samples);
  const int64_t side = std::llround(std::sqrt((double)s.rays));
  s.side = side * side == s.rays && side % 8 == 0 ? (int)side : 0;
  STD_TORCH_CHECK(s.planes <= kMaxPlanes, "eg3d_ops.render_rays: at most ", kMaxPlanes, " planes, got ", s.planes);
  STD_TORCH_CHECK(p[1] * p[3] * p[4] * s.channels_p < (int64_t{1} << 31),
                  "eg3d_ops.render_rays: the planes of one image must have fewer than 2^31 elements");
  return s;
}

// The arguments of a kernel and the memory that they point into.
template <class Args>
struct Call {
  Args args{};
  Tensor planes, origins, directions;
  DecoderPack decoder;

  Call(const Tensor& planes_in, const Tensor& origins_in, const Tensor& directions_in, const Tensor& w1,
       const Tensor& b1, const Tensor& w2, const Tensor& b2, const std::vector<int64_t>& axes, double box_warp,
       int64_t samples)
      : origins(checked(origins_in, "origins")),
        directions(checked(directions_in, "directions")),
        decoder(checked(w1, "w1"), checked(b1, "b1"), checked(w2, "w2"), checked(b2, "b2"),
                sizes_of(planes_in, origins_in, w1, w2, samples)) {
    STD_TORCH_CHECK(planes_in.scalar_type() == ScalarType::Float, "eg3d_ops.render_rays (CPU): planes must be float32");
    args.size = sizes_of(planes_in, origins_in, w1, w2, samples);
    planes = pack_planes(planes_in, args.size);
    args.planes = floats(planes), args.origins = floats(origins), args.directions = floats(directions);
    STD_TORCH_CHECK((int64_t)axes.size() == 2 * args.size.planes, "eg3d_ops.render_rays: two axes per plane");
    std::copy(axes.begin(), axes.end(), args.axes);
    args.scale = (float)(2 / box_warp);
    args.decoder = decoder.view;
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays(Tensor planes, Tensor origins, Tensor directions, Tensor near,
                                                       Tensor far, Tensor w1, Tensor b1, Tensor w2, Tensor b2,
                                                       std::optional<Tensor> coarse_draws,
                                                       std::optional<Tensor> fine_draws, std::vector<int64_t> axes,
                                                       double box_warp, int64_t num_coarse, int64_t num_fine,
                                                       bool disparity) {
  Call<RenderForward> call(planes, origins, directions, w1, b1, w2, b2, axes, box_warp, num_coarse + num_fine);
  RenderForward& a = call.args;
  const int64_t n = a.size.batch, r = a.size.rays;
  near = checked(near, "near"), far = checked(far, "far");
  if (coarse_draws) coarse_draws = checked(*coarse_draws, "coarse_draws");
  if (fine_draws) fine_draws = checked(*fine_draws, "fine_draws");
  const Tensor color = like(call.origins, {n, r, a.size.colors}), depth = like(call.origins, {n, r});
  const Tensor weight = like(call.origins, {n, r}), depths = like(call.origins, {n, r, a.size.samples});
  a.coarse = (int)num_coarse, a.fine = (int)num_fine, a.disparity = disparity;
  a.near = floats(near), a.far = floats(far);
  a.coarse_draws = coarse_draws ? floats(*coarse_draws) : nullptr;
  a.fine_draws = fine_draws ? floats(*fine_draws) : nullptr;
  a.color = mutable_floats(color), a.depth = mutable_floats(depth);
  a.weight = mutable_floats(weight), a.depths = mutable_floats(depths);
  for_units(a.size.tiles(), 8, render_forward_kernels().tiles, a);
  return {color, depth, weight, depths};
}

constexpr int64_t kBlocks = 64, kTilesPerBlock = 8;  // a chunk: 512 tiles, about 13 MB of slots at the official sizes

// Adds the blocks' decoder gradients to the total, in order.
void add_blocks(const RenderBackward& a, int64_t blocks, std::vector<double>& total) {
  const int64_t count = a.decoder_size();
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < count; ++i) total[i] += a.d_decoder[b * count + i];
}

std::tuple<Tensor, Tensor, Tensor, Tensor> unpack_decoder(const std::vector<double>& total, const RenderSizes& s,
                                                          const Tensor& any) {
  const Tensor w1 = like(any, {s.hidden, s.channels}), b1 = like(any, {s.hidden});
  const Tensor w2 = like(any, {1 + s.colors, s.hidden}), b2 = like(any, {1 + s.colors});
  const double *g_w1 = total.data(), *g_b1 = g_w1 + (int64_t)s.hidden_p * s.channels_p, *g_density = g_b1 + s.hidden_p;
  const double *g_color_t = g_density + s.hidden_p, *g_b2 = g_color_t + (int64_t)s.hidden_p * s.colors_p;
  for (int64_t h = 0; h < s.hidden; ++h) {
    for (int64_t c = 0; c < s.channels; ++c) mutable_floats(w1)[h * s.channels + c] = (float)g_w1[h * s.channels_p + c];
    for (int64_t o = 0; o < s.colors; ++o)
      mutable_floats(w2)[(1 + o) * s.hidden + h] = (float)g_color_t[h * s.colors_p + o];
    mutable_floats(w2)[h] = (float)g_density[h];
    mutable_floats(b1)[h] = (float)g_b1[h];
  }
  mutable_floats(b2)[0] = (float)g_b2[s.colors_p];
  for (int64_t o = 0; o < s.colors; ++o) mutable_floats(b2)[1 + o] = (float)g_b2[o];
  return {w1, b1, w2, b2};
}

void run_chunk(RenderBackward& a, std::vector<double>& total) {
  const auto kernels = render_backward_kernels();
  const int64_t blocks = (a.chunk_tiles + kTilesPerBlock - 1) / kTilesPerBlock;
  std::fill_n(a.d_decoder, blocks * a.decoder_size(), 0.f);
  for_units(blocks, 1, kernels.blocks, a);
  const int64_t units = (int64_t)a.size.planes * (a.size.channels_p / kPad) * a.bands;
  for_units(units, 1, kernels.scatter, a);
  add_blocks(a, blocks, total);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> render_rays_backward(Tensor d_color, Tensor d_depth, Tensor d_weight,
                                                                        Tensor planes, Tensor origins,
                                                                        Tensor directions, Tensor w1, Tensor b1,
                                                                        Tensor w2, Tensor b2, Tensor depths,
                                                                        std::vector<int64_t> axes, double box_warp) {
  depths = checked(depths, "depths");
  Call<RenderBackward> call(planes, origins, directions, w1, b1, w2, b2, axes, box_warp, depths.sizes()[2]);
  RenderBackward& a = call.args;
  const RenderSizes& s = a.size;
  d_color = checked(d_color, "d_color"), d_depth = checked(d_depth, "d_depth"),
  d_weight = checked(d_weight, "d_weight");
  a.d_color = floats(d_color), a.d_depth = floats(d_depth), a.d_weight = floats(d_weight), a.depths = floats(depths);

  const int64_t tiles = kBlocks * kTilesPerBlock, rows = s.row_stride(), corners = 4 * s.planes * rows;
  const Tensor packed = zeros_like(depths, {s.batch, s.planes, s.height, s.width, s.channels_p});
  const Tensor weights = like(depths, {tiles, corners}), features = like(depths, {tiles, rows, s.channels_p});
  const Tensor decoder = like(depths, {kBlocks, a.decoder_size()});
  std::vector<int> count(tiles), sample(tiles * rows);
  std::vector<int32_t> offsets(tiles * corners);
  std::vector<double> total(a.decoder_size(), 0.0);
  a.d_planes = mutable_floats(packed), a.corner_weights = mutable_floats(weights),
  a.d_features = mutable_floats(features);
  a.d_decoder = mutable_floats(decoder), a.count = count.data(), a.sample = sample.data(), a.offsets = offsets.data();
  a.tiles_per_block = kTilesPerBlock;
  const int64_t units = (int64_t)s.planes * (s.channels_p / kPad);
  a.bands = (int)((torch::stable::get_num_threads() + units - 1) / units);

  for (int64_t image = 0; image < s.batch; ++image)
    for (int64_t t = 0; t < s.tiles_per_image(); t += tiles) {
      a.first_tile = image * s.tiles_per_image() + t;
      a.chunk_tiles = std::min(tiles, s.tiles_per_image() - t);
      run_chunk(a, total);
    }

  const int64_t pixels = (int64_t)s.height * s.width;
  const Tensor d_planes = like(depths, {s.batch, s.planes, s.channels, s.height, s.width});
  prefer_huge_pages(d_planes);
  for_pixels(s.batch * s.planes, pixels, [&](int64_t plane, int64_t begin, int64_t end) {
    unpack_plane(floats(packed) + plane * pixels * s.channels_p, s.channels, s.channels_p, begin, end, pixels,
                 mutable_floats(d_planes) + plane * s.channels * pixels);
  });
  return std::tuple_cat(std::make_tuple(d_planes), unpack_decoder(total, s, depths));
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) {
  m.impl("render_rays", TORCH_BOX(&eg3d::render_rays));
  m.impl("render_rays_backward", TORCH_BOX(&eg3d::render_rays_backward));
}

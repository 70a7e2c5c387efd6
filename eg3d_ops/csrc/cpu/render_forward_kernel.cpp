// Forward pass of the renderer on tiles of rays. Hidden activations stay in a tile's scratch; colours of samples never
// leave the registers.
#include "gemm.h"
#include "lookup.h"
#include "ray_march.h"
#include "render.h"
#include "scratch.h"

namespace eg3d {
namespace EG3D_ISA {

// The rows of a tile are the coarse samples of all its rays, then the fine ones.
struct ForwardTile {
  const RenderForward& a;
  int64_t row_stride;
  Scratch scratch;
  Corners corners;
  float *features, *hidden, *densities, *depths, *colors;
  float *sorted_depths, *sorted_densities, *cdf, *sort_keys;
  int *order, *tags, *active_ray;
  float* active_weight;
  const float **feature_rows, **active_rows;
  Interval interval;

  static int64_t floats(const RenderSizes& size) {
    const int64_t per_row = 8 * size.planes + size.channels_p + size.hidden_p + 4 + 4;  // a pointer takes 2 floats
    return per_row * size.row_stride() + 11 * size.ray_stride() + size.rays_per_tile * size.colors_p;
  }

  explicit ForwardTile(const RenderForward& args) : a(args), row_stride(a.size.row_stride()), scratch(floats(a.size)) {
    corners = {scratch.take<int32_t>(4 * a.size.planes * row_stride), scratch.take(4 * a.size.planes * row_stride),
               row_stride};
    features = scratch.take(row_stride * a.size.channels_p);
    hidden = scratch.take(row_stride * a.size.hidden_p);
    densities = scratch.take(row_stride);
    depths = scratch.take(row_stride);
    active_ray = scratch.take<int>(row_stride);
    active_weight = scratch.take(row_stride);
    feature_rows = scratch.take<const float*>(2 * row_stride);
    active_rows = scratch.take<const float*>(2 * row_stride);
    colors = scratch.take(a.size.rays_per_tile * a.size.colors_p);
    float** const per_ray[] = {&sorted_depths,  &sorted_densities, &cdf,
                               &sort_keys,      &interval.weight,  &interval.passed,
                               &interval.alpha, &interval.decay,   &interval.middle};
    for (float** piece : per_ray) *piece = scratch.take(a.size.ray_stride());
    order = scratch.take<int>(a.size.ray_stride());
    tags = scratch.take<int>(a.size.ray_stride());
    for (int r = 0; r < row_stride; ++r) feature_rows[r] = features + r * a.size.channels_p;
  }

  // Computes layer 1 and the density of rows [begin, end), whose corners are known.
  void decode(int64_t image, int begin, int end) {
    const PackedDecoder& d = a.decoder;
    const int hp = a.size.hidden_p;
    gather(a, image, corners, begin, end, features);
    for (int r = begin; r < end; ++r) densities[r] = d.b2_density;
    gemm(end - begin, hp, a.size.channels, feature_rows, 1, d.w1_t, hp, [&](int row, int column, const auto& sum) {
      float* out = hidden + (int64_t)(begin + row) * hp + column;
      vf density = {};
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) {
        const vf h = vsoftplus(sum[j] + load(d.b1 + column + j * VL));
        store(out + j * VL, h);
        density += h * load(d.w2_density + column + j * VL);
      }
      densities[begin + row] += horizontal_sum(density);
    });
  }

  // Sorts the samples of one ray by depth, and computes their weights and the sums that need no colour. Appends the
  // visible samples to the `active` ones and returns the new number of active samples.
  int composite(int64_t ray, int local, int rays, int active) {
    const int s = a.coarse, f = a.fine, k_all = a.size.samples;
    const float *coarse = depths + local * s, *fine = depths + rays * s + local * f;
    merge(coarse, s, fine, f, sorted_depths, order, sort_keys, tags);
    const auto row_of = [&](int tag) { return tag < s ? local * s + tag : rays * s + local * f + tag - s; };
    for (int k = 0; k < k_all; ++k) sorted_densities[k] = densities[row_of(order[k])];
    march(sorted_densities, sorted_depths, k_all, interval);
    float depth = 0.f, total = 0.f, before = 0.f;
    for (int k = 0; k < k_all; ++k) {
      const float w = k < k_all - 1 ? interval.weight[k] : 0.f;
      if (k < k_all - 1) depth += w * (sorted_depths[k] + sorted_depths[k + 1]) * 0.5f;
      total += w;
      const float mean = (before + w) * 0.5f;  // a sample's colour counts in the intervals on both sides
      before = w;
      // NaN and negative weights are active. Where no ray meets the box, 'auto' limits have far before near, so that
      // weights are negative.
      if (!(mean <= kNoLight && mean >= -kNoLight)) {
        active_rows[active] = hidden + (int64_t)row_of(order[k]) * a.size.hidden_p;
        active_weight[active] = mean;
        active_ray[active++] = local;
      }
      a.depths[ray * k_all + k] = sorted_depths[k];
    }
    a.depth[ray] = depth, a.weight[ray] = total;
    return active;
  }

  void shade(int active) {
    const PackedDecoder& d = a.decoder;
    const int op = a.size.colors_p;
    gemm(active, op, a.size.hidden, active_rows, 1, d.w2_color_t, op, [&](int row, int column, const auto& sum) {
      float* out = colors + active_ray[row] * op + column;
      for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j) {
        const vf c = vsigmoid(sum[j] + load(d.b2_color + column + j * VL)) * 1.002f - 0.001f;
        store(out + j * VL, load(out + j * VL) + active_weight[row] * c);
      }
    });
  }

  void run(int64_t tile) {
    const RenderSizes& size = a.size;
    const int64_t image = tile / size.tiles_per_image(), start = tile % size.tiles_per_image() * size.rays_per_tile;
    const int rays = (int)(size.rays - start < size.rays_per_tile ? size.rays - start : size.rays_per_tile);
    const auto ray = [&](int i) { return image * size.rays + size.ray_at(start + i); };
    const int s = a.coarse, f = a.fine;
    for (int i = 0; i < rays; ++i) {
      coarse_depths(a, ray(i), depths + i * s);
      find_corners(a, ray(i), depths + i * s, s, i * s, corners);
    }
    decode(image, 0, rays * s);
    for (int i = 0; i < rays && f > 0; ++i) {
      march(densities + i * s, depths + i * s, s, interval);
      float* fine = depths + rays * s + i * f;
      importance_depths(depths + i * s, interval.weight, s, a.fine_draws ? a.fine_draws + ray(i) * f : nullptr, f, cdf,
                        fine);
      find_corners(a, ray(i), fine, f, rays * s + i * f, corners);
    }
    if (f > 0) decode(image, rays * s, rays * (s + f));
    int active = 0;
    for (int i = 0; i < rays; ++i) active = composite(ray(i), i, rays, active);
    for (int64_t i = 0; i < (int64_t)rays * size.colors_p; ++i) colors[i] = 0.f;
    if (active > 0) shade(active);
    for (int i = 0; i < rays; ++i)
      for (int c = 0; c < size.colors; ++c) a.color[ray(i) * size.colors + c] = colors[i * size.colors_p + c];
  }
};

static void tiles(const RenderForward& args, int64_t begin, int64_t end) {
  ForwardTile tile(args);
  for (int64_t i = begin; i < end; ++i) tile.run(i);
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(RenderForwardKernels, render_forward) = {EG3D_ISA::tiles};

}  // namespace eg3d

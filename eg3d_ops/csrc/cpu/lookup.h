// Bilinear lookup of a tile's samples on the planes: first the corners, then the weighted sum of texels.
#pragma once

#include "render.h"
#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

// Two neighbouring texels along one axis of `count` texels (align_corners = False), and their weights. A texel outside
// counts as zero: its weight is 0 and its index is moved inside.
struct Tap {
  vi first, second;
  vf w_first, w_second;
};
EG3D_INLINE Tap tap(vf position, int count) {
  const vf x = ((position + 1.f) * (float)count - 1.f) * 0.5f;
  // A position far outside, or NaN, must not overflow the integer. NaN still reaches the weights through x.
  const vf inside = vmin(x > -2.f ? x : splat(-2.f), splat(count + 1.f));
  vi i = __builtin_convertvector(inside, vi);      // rounds towards zero
  i += (inside < __builtin_convertvector(i, vf));  // a true mask is -1, which turns this into floor
  const vf fraction = x - __builtin_convertvector(i, vf), outside = x * 0.f;
  const vi has_first = (i >= 0) & (i < count), has_second = (i >= -1) & (i < count - 1);
  return {has_first ? i : 0 * i, has_second ? i + 1 : 0 * i, has_first ? 1.f - fraction : outside,
          has_second ? fraction : outside};
}

// Corners of a tile's samples, 4 on each plane. Corner `corner` of sample `sample` is entry [corner * stride + sample].
struct Corners {
  int32_t* offset;  // into the image's planes
  float* weight;    // includes the division by the number of planes
  int64_t stride;
};

// Finds the corners of `count` samples at `depths` along a ray. Writes whole vectors, from sample `at` of the tile on.
EG3D_INLINE void find_corners(const RenderScene& scene, int64_t ray, const float* depths, int count, int at,
                              const Corners& out) {
  const RenderSizes& size = scene.size;
  const float* o = scene.origins + ray * 3;
  const float* d = scene.directions + ray * 3;
  const float mean = 1.f / size.planes;
  for (int k = 0; k < count; k += VL) {
    const vf t = load(depths + k);
    for (int p = 0; p < size.planes; ++p) {
      const int u = scene.axes[2 * p], v = scene.axes[2 * p + 1];
      const Tap x = tap((o[u] + t * d[u]) * scene.scale, size.width);
      const Tap y = tap((o[v] + t * d[v]) * scene.scale, size.height);
      const vi top = (y.first + p * size.height) * size.width, bottom = (y.second + p * size.height) * size.width;
      const vi offsets[4] = {top + x.first, top + x.second, bottom + x.first, bottom + x.second};
      const vf weights[4] = {y.w_first * x.w_first, y.w_first * x.w_second, y.w_second * x.w_first,
                             y.w_second * x.w_second};
      for (int c = 0; c < 4; ++c) {
        const int64_t entry = (4 * p + c) * out.stride + at + k;
        store(out.offset + entry, offsets[c] * size.channels_p);
        store(out.weight + entry, weights[c] * mean);
      }
    }
  }
}

template <int NV>
EG3D_INLINE void gather(const float* planes, const Corners& corners, int count, int sample, float* out) {
  vf sum[4][NV] = {};  // one per corner of a plane, so that additions do not wait for each other
  const float* weight = corners.weight + sample;
  const int32_t* offset = corners.offset + sample;
  for (int plane = 0; plane < count; plane += 4, weight += 4 * corners.stride, offset += 4 * corners.stride)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j)
        sum[c][j] += weight[c * corners.stride] * load(planes + offset[c * corners.stride] + j * VL);
  for (int j = 0; j < NV; ++j) store(out + j * VL, (sum[0][j] + sum[1][j]) + (sum[2][j] + sum[3][j]));
}

// Computes the features of samples [begin, end) of the tile, the weighted sums of their texels. `out` is [end - begin,
// C_p].
EG3D_INLINE void gather(const RenderScene& scene, int64_t image, const Corners& corners, int begin, int end,
                        float* out) {
  const RenderSizes& size = scene.size;
  const float* planes = scene.planes + image * size.planes * size.height * size.width * size.channels_p;
  const int n = 4 * size.planes, vectors = size.channels_p / VL;
  for (int k = begin; k < end; ++k, out += size.channels_p) {
    for (int c = 0; c < n; ++c) {  // texels of a later sample; reading entries past the last one is harmless
      const float* later = planes + corners.offset[c * corners.stride + k + 4];
      __builtin_prefetch(later);
      __builtin_prefetch(later + 16);
    }
    int v = 0;
    for (; v + 4 <= vectors; v += 4) gather<4>(planes + v * VL, corners, n, k, out + v * VL);
    for (; v + 2 <= vectors; v += 2) gather<2>(planes + v * VL, corners, n, k, out + v * VL);
    for (; v < vectors; ++v) gather<1>(planes + v * VL, corners, n, k, out + v * VL);
  }
}

}  // namespace EG3D_ISA
}  // namespace eg3d

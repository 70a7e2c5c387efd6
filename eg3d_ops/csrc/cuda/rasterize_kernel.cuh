// Visibility of triangles. The nearest triangle of a pixel has the least key,
//   key = (2^31 - 1 - bits of 1/z) 2^32 + index of the triangle,
// and a minimum does not depend on the order of its terms: results are the same in every run.
#pragma once

#include "../rasterize_setup.h"
#include "numeric.cuh"
#include "rasterize.h"

namespace eg3d {

typedef unsigned long long RasterKey;

constexpr int kRasterThreads = 128;
constexpr int kTeam = 8;  // threads that draw one triangle together: a tile of 8 pixels in a row at a time
constexpr RasterKey kNothing = ~0ULL;

__device__ inline i64 raster_thread() { return (i64)blockIdx.x * kRasterThreads + threadIdx.x; }

__global__ void clear_keys_kernel(i64 count, RasterKey* keys) {
  if (raster_thread() < count) keys[raster_thread()] = kNothing;
}

__global__ void draw_triangles_kernel(Rasterize p, const float* points, const int* faces, RasterKey* keys) {
  const i64 team = raster_thread() / kTeam;
  if (team >= p.images * p.num_faces) return;
  const i64 image = team / p.num_faces, face = team % p.num_faces;
  Triangle t;
  if (!set_up(points + image * p.vertices * 3, faces + 3 * face, p.vertices, p.height, p.width, t)) return;
  RasterKey* own = keys + image * p.height * p.width;
  for (i64 y = t.first_y; y <= t.last_y; ++y)
    for (i64 x = t.first_x + threadIdx.x % kTeam; x <= t.last_x; x += kTeam) {
      i64 edges[3];
      if (!covers(t, x, y, edges)) continue;
      const unsigned depth = 0x7fffffffu - (unsigned)__float_as_int(inverse_depth(t, edges));
      atomicMin(own + y * p.width + x, ((RasterKey)depth << 32) | (unsigned)face);
    }
}

__global__ void read_keys_kernel(i64 count, const RasterKey* keys, int* ids) {
  const i64 i = raster_thread();
  if (i < count) ids[i] = keys[i] == kNothing ? -1 : (int)(keys[i] & 0x7fffffffu);
}

}  // namespace eg3d

// The exact arithmetic of rasterize, shared by the CPU and CUDA kernels. rasterize.py has the same in PyTorch.
#pragma once

#if defined(__CUDACC__)
#define EG3D_RASTER __host__ __device__ inline
#else
#include <math.h>
#define EG3D_RASTER static inline
#endif

namespace eg3d {

typedef long long i64;  // NVRTC has no <stdint.h>

constexpr i64 kSubpixels = 256;              // vertices are rounded to 1 / kSubpixels of a pixel
constexpr float kFarthest = 1048576.f;       // pixels
constexpr float kNear = 1e-6f, kFar = 1e6f;  // limits of z

// A triangle in units of 1 / kSubpixels. The interior lies to the right of each edge, y pointing down.
struct Triangle {
  i64 x[3], y[3];
  float inverse[3];                      // 1/z
  double per_area;                       // 1 / (sum of the edge functions), which is the same at every pixel
  i64 first_x, last_x, first_y, last_y;  // the pixels whose centres lie within the bounds
};

EG3D_RASTER i64 edge_value(i64 ax, i64 ay, i64 bx, i64 by, i64 px, i64 py) {
  return (bx - ax) * (py - ay) - (by - ay) * (px - ax);
}

EG3D_RASTER i64 least(i64 a, i64 b) { return a < b ? a : b; }
EG3D_RASTER i64 most(i64 a, i64 b) { return a > b ? a : b; }

// Rounds a quotient by kSubpixels down; an arithmetic shift also does so for negative numbers.
EG3D_RASTER i64 whole_pixels(i64 v) { return v >> 8; }

// A vertex on the screen.
struct Corner {
  i64 x, y;       // in units of 1 / kSubpixels
  float inverse;  // 1/z
  bool usable;    // false: triangles with this vertex are not drawn
};

EG3D_RASTER Corner corner_at(const float* p) {
  Corner c{};
  c.usable = fabsf(p[0]) <= kFarthest && fabsf(p[1]) <= kFarthest && p[2] > kNear && p[2] < kFar;
  if (!c.usable) return c;
  c.x = static_cast<i64>(rintf(p[0] * 256.f));
  c.y = static_cast<i64>(rintf(p[1] * 256.f));
  c.inverse = 1.f / p[2];
  return c;
}

// Joins three vertices. Returns false if the triangle is not drawn.
EG3D_RASTER bool join(const Corner& a, const Corner& b, const Corner& c, i64 height, i64 width, Triangle& t) {
  if (!(a.usable && b.usable && c.usable)) return false;
  const i64 area = edge_value(a.x, a.y, b.x, b.y, c.x, c.y);
  if (area == 0) return false;
  const Corner &second = area < 0 ? c : b, &third = area < 0 ? b : c;
  const i64 half = kSubpixels / 2;
  t.first_x = most(0, -whole_pixels(half - least(a.x, least(b.x, c.x))));
  t.first_y = most(0, -whole_pixels(half - least(a.y, least(b.y, c.y))));
  t.last_x = least(width - 1, whole_pixels(most(a.x, most(b.x, c.x)) - half));
  t.last_y = least(height - 1, whole_pixels(most(a.y, most(b.y, c.y)) - half));
  if (t.first_x > t.last_x || t.first_y > t.last_y) return false;
  t.per_area = 1. / static_cast<double>(area < 0 ? -area : area);
  t.x[0] = a.x, t.y[0] = a.y, t.inverse[0] = a.inverse;
  t.x[1] = second.x, t.y[1] = second.y, t.inverse[1] = second.inverse;
  t.x[2] = third.x, t.y[2] = third.y, t.inverse[2] = third.inverse;
  return true;
}

// Reads a triangle. Returns false if it is not drawn.
EG3D_RASTER bool set_up(const float* points, const int* face, i64 vertices, i64 height, i64 width, Triangle& t) {
  Corner c[3];
  for (int k = 0; k < 3; ++k) {
    if (face[k] < 0 || face[k] >= vertices) return false;
    c[k] = corner_at(points + 3 * static_cast<i64>(face[k]));
  }
  return join(c[0], c[1], c[2], height, width, t);
}

// Edge functions at the centre of pixel (px, py); edge k lies opposite of corner k. Centres on an edge belong to the
// triangle if the edge is a left or a top one.
EG3D_RASTER bool covers(const Triangle& t, i64 px, i64 py, i64 (&edges)[3]) {
  const i64 x = px * kSubpixels + kSubpixels / 2, y = py * kSubpixels + kSubpixels / 2;
  bool inside = true;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    edges[k] = edge_value(t.x[a], t.y[a], t.x[b], t.y[b], x, y);
    const i64 dx = t.x[b] - t.x[a], dy = t.y[b] - t.y[a];
    const bool owned = dy < 0 || (dy == 0 && dx > 0);
    inside = inside && (edges[k] > 0 || (edges[k] == 0 && owned));
  }
  return inside;
}

// 1/z at a pixel. The products are exact, so that fusing them with the additions changes nothing.
EG3D_RASTER float inverse_depth(const Triangle& t, const i64 (&edges)[3]) {
  double depth = 0;
  for (int k = 0; k < 3; ++k) {
    const float share = static_cast<float>(static_cast<double>(edges[k]) * t.per_area);
    depth += static_cast<double>(share) * static_cast<double>(t.inverse[k]);
  }
  return static_cast<float>(depth);
}

}  // namespace eg3d

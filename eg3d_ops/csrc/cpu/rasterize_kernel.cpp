// rasterize on the CPU, compiled once per instruction set: each triangle in turn, over the pixels of its bounds.
#include "rasterize.h"

namespace eg3d {
namespace EG3D_ISA {

// Draws one triangle. Triangles come in the order of their index, so that the first of equal depths stays.
//
// Each edge function is lowered by the least value that a covered centre has, 0 or 1, so that a centre is covered if
// none of the three is negative: a single test of the sign bits, which processors predict better than three.
static void draw(const Triangle& t, int32_t id, i64 width, float* depth, int32_t* ids) {
  i64 row[3], right[3], down[3], least_covered[3];
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const i64 dx = t.x[b] - t.x[a], dy = t.y[b] - t.y[a];
    least_covered[k] = dy < 0 || (dy == 0 && dx > 0) ? 0 : 1;
    row[k] = edge_value(t.x[a], t.y[a], t.x[b], t.y[b], t.first_x * kSubpixels + kSubpixels / 2,
                        t.first_y * kSubpixels + kSubpixels / 2) -
             least_covered[k];
    right[k] = -dy * kSubpixels;
    down[k] = dx * kSubpixels;
  }
  for (i64 y = t.first_y; y <= t.last_y; ++y) {
    i64 e0 = row[0], e1 = row[1], e2 = row[2];
    for (i64 x = t.first_x; x <= t.last_x; ++x) {
      if ((e0 | e1 | e2) >= 0) {
        const i64 edges[3] = {e0 + least_covered[0], e1 + least_covered[1], e2 + least_covered[2]};
        const float inverse = inverse_depth(t, edges);
        const i64 at = y * width + x;
        if (inverse > depth[at]) depth[at] = inverse, ids[at] = id;
      }
      e0 += right[0], e1 += right[1], e2 += right[2];
    }
    for (int k = 0; k < 3; ++k) row[k] += down[k];
  }
}

static void run(const RasterizeArgs& a, RasterizeScratch scratch, int64_t begin, int64_t end) {
  const int64_t pixels = a.height * a.width;
  for (int64_t image = begin; image < end; ++image) {
    int32_t* ids = a.ids + image * pixels;
    for (int64_t i = 0; i < pixels; ++i) scratch.depth[i] = -1.f, ids[i] = -1;  // every 1/z is nearer than -1
    const float* points = a.points + image * a.vertices * 3;
    for (int64_t v = 0; v < a.vertices; ++v) scratch.corners[v] = corner_at(points + 3 * v);
    Triangle t;
    for (int64_t f = 0; f < a.num_faces; ++f) {
      const int32_t* face = a.faces + 3 * f;
      bool known = true;
      for (int k = 0; k < 3; ++k) known = known && face[k] >= 0 && face[k] < a.vertices;
      if (!known) continue;
      const Corner* c = scratch.corners;
      if (join(c[face[0]], c[face[1]], c[face[2]], a.height, a.width, t))
        draw(t, static_cast<int32_t>(f), a.width, scratch.depth, ids);
    }
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(RasterizeKernels, rasterize){EG3D_ISA::run};

}  // namespace eg3d

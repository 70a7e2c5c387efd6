// rasterize on the CPU, compiled once per instruction set: each triangle in turn, over the pixels of its bounds.
#include "../rasterize_setup.h"
#include "rasterize.h"

namespace eg3d {
namespace EG3D_ISA {

// Draws one triangle. Triangles come in the order of their index, so that the first of equal depths stays.
static void draw(const Triangle& t, int32_t id, i64 width, float* depth, int32_t* ids) {
  i64 row[3], right[3], down[3], threshold[3];
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const i64 dx = t.x[b] - t.x[a], dy = t.y[b] - t.y[a];
    row[k] = edge_value(t.x[a], t.y[a], t.x[b], t.y[b], t.first_x * kSubpixels + kSubpixels / 2,
                        t.first_y * kSubpixels + kSubpixels / 2);
    right[k] = -dy * kSubpixels;
    down[k] = dx * kSubpixels;
    threshold[k] = dy < 0 || (dy == 0 && dx > 0) ? 0 : 1;  // least value of a covered centre
  }
  for (i64 y = t.first_y; y <= t.last_y; ++y) {
    i64 edges[3] = {row[0], row[1], row[2]};
    for (i64 x = t.first_x; x <= t.last_x; ++x) {
      if (edges[0] >= threshold[0] && edges[1] >= threshold[1] && edges[2] >= threshold[2]) {
        const float inverse = inverse_depth(t, edges);
        const i64 at = y * width + x;
        if (inverse > depth[at]) depth[at] = inverse, ids[at] = id;
      }
      for (int k = 0; k < 3; ++k) edges[k] += right[k];
    }
    for (int k = 0; k < 3; ++k) row[k] += down[k];
  }
}

static void run(const RasterizeArgs& a, float* depth, int64_t begin, int64_t end) {
  const int64_t pixels = a.height * a.width;
  for (int64_t image = begin; image < end; ++image) {
    int32_t* ids = a.ids + image * pixels;
    for (int64_t i = 0; i < pixels; ++i) depth[i] = -1.f, ids[i] = -1;  // every 1/z is nearer than -1
    const float* points = a.points + image * a.vertices * 3;
    Triangle t;
    for (int64_t f = 0; f < a.num_faces; ++f)
      if (set_up(points, a.faces + 3 * f, a.vertices, a.height, a.width, t))
        draw(t, static_cast<int32_t>(f), a.width, depth, ids);
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(RasterizeKernels, rasterize){EG3D_ISA::run};

}  // namespace eg3d

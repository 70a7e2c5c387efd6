// Launcher of rasterize.
#include "launch.h"
#include "rasterize_kernel.cuh"

namespace eg3d {
namespace {

dim3 blocks(long long threads) {
  const long long count = (threads + kRasterThreads - 1) / kRasterThreads;
  if (count > 0x7fffffffLL) fail("rasterize: too many triangles or pixels in one call; draw fewer images at a time");
  return dim3((unsigned)count);
}

}  // namespace

void launch_rasterize(Rasterize p, const float* points, const int* faces, unsigned long long* keys, int* ids,
                      void* stream) {
  const long long pixels = p.images * p.height * p.width, teams = p.images * p.num_faces;
  if (pixels == 0) return;
  launch("clear_keys_kernel", clear_keys_kernel, blocks(pixels), kRasterThreads, 0, stream, pixels, keys);
  if (teams != 0)
    launch("draw_triangles_kernel", draw_triangles_kernel, blocks(teams * kTeam), kRasterThreads, 0, stream, p, points,
           faces, keys);
  launch("read_keys_kernel", read_keys_kernel, blocks(pixels), kRasterThreads, 0, stream, pixels, keys, ids);
}

}  // namespace eg3d

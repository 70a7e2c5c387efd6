// Visibility of triangles on the CPU. rasterize.py describes the op, and why all implementations agree bit for bit.
#pragma once

#include "../rasterize_setup.h"
#include "dispatch.h"

namespace eg3d {

struct RasterizeArgs {
  const float* points;   // [images, vertices, 3]
  const int32_t* faces;  // [num_faces, 3]
  int64_t vertices, num_faces, height, width;
  int32_t* ids;  // [images, height, width]
};

// Memory for one image.
struct RasterizeScratch {
  float* depth;     // [height, width]
  Corner* corners;  // [vertices]
};

// Draws images [begin, end).
typedef void RasterizeRun(const RasterizeArgs&, RasterizeScratch, int64_t begin, int64_t end);

struct RasterizeKernels {
  RasterizeRun* run;
};

EG3D_DECLARE_KERNELS(RasterizeKernels, rasterize)

}  // namespace eg3d

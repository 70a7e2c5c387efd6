// Arguments of the rasterize kernels, and their launcher.
#pragma once

namespace eg3d {

struct Rasterize {
  long long images, vertices, num_faces, height, width;
};

// points [images, vertices, 3], faces [num_faces, 3]. keys: room for one number per pixel. ids [images, height, width].
void launch_rasterize(Rasterize, const float* points, const int* faces, unsigned long long* keys, int* ids,
                      void* stream);

}  // namespace eg3d

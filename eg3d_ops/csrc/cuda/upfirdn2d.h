// Arguments of the upfirdn2d kernel, and its launcher.
#pragma once

#include "common.h"

namespace eg3d {

struct ResampleAxis {
  int in, out, up, down, before, taps;
};

struct Upfirdn2d {
  ResampleAxis x, y;
  int images;  // planes of the memory layout: N * C, or N if channels are innermost
  int inner;   // numbers per pixel, all treated the same: 1, or C
  bool flip;   // correlation instead of convolution
  double gain;
};

// `filter` is float32 [y.taps, x.taps].
void launch_upfirdn2d(ElementType, const Upfirdn2d&, const void* x, const float* filter, void* y, void* stream);

}  // namespace eg3d

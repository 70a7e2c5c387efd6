// What the kernel of upfirdn2d is told, and its launcher.
#pragma once

#include "common.h"

namespace eg3d {

struct ResampleAxis {
  int in, out, up, down, before, taps;
};

struct Upfirdn2d {
  ResampleAxis x, y;
  int images;  // planes of the memory layout: N * C, or N where channels lie innermost
  int inner;   // numbers per pixel, treated alike: 1, or C
  bool flip;   // correlation instead of convolution
  double gain;
};

// `filter` has [y.taps, x.taps] float32.
void launch_upfirdn2d(ElementType, const Upfirdn2d&, const void* x, const float* filter, void* y, void* stream);

}  // namespace eg3d

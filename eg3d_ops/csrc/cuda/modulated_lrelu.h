// Arguments of the modulated_lrelu kernel, and its launcher.
#pragma once

#include "common.h"

namespace eg3d {

struct ModulatedLrelu {
  long long count;     // numbers in all images
  long long pixels;    // of one image
  int channels;        // of one image
  bool channels_last;  // [N, pixels, channels] in memory, otherwise [N, channels, pixels]
  bool own_noise;      // each image has noise of its own
  double alpha, gain;  // the launcher passes these three to the kernel in the type of the arithmetic
  double clamp;        // negative: no clamp
  bool aligned;        // x and y start on a 16-byte boundary; set by the launcher
};

// `scale` and `next` are [N, channels], `bias` [channels], `noise` [pixels] or [N, pixels]: all in the type of the
// arithmetic. Null: the tensor is absent.
void launch_modulated_lrelu(ElementType, ModulatedLrelu, const void* x, const void* scale, const void* bias,
                            const void* noise, const void* next, void* y, void* stream);

}  // namespace eg3d

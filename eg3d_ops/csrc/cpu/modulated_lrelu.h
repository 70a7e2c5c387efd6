// What follows a modulated convolution: y = clamp(gain * lrelu(x * scale + noise + bias)) * next.
#pragma once

#include "dispatch.h"

namespace eg3d {

// x and y are N images of `channels` x `pixels` numbers. Null: the tensor is absent.
template <class T>
struct ModulatedLrelu {
  const T* x;
  T* y;
  const T *scale, *next;  // [N, channels]
  const T* bias;          // [channels]
  const T* noise;         // [pixels], or [N, pixels] if noise_step is `pixels`
  int64_t channels, pixels, noise_step;
  bool channels_last;  // [N, pixels, channels] in memory, otherwise [N, channels, pixels]
  T alpha, gain;
  T clamp;  // NaN means no clamp, because no comparison with NaN is true
};

// Work units are pixels with channels innermost, otherwise channels, counted through all images.
struct ModulatedLreluKernels {
  void (*run_float)(const ModulatedLrelu<float>&, int64_t begin, int64_t end);
  void (*run_double)(const ModulatedLrelu<double>&, int64_t begin, int64_t end);
};

EG3D_DECLARE_KERNELS(ModulatedLreluKernels, modulated_lrelu)

}  // namespace eg3d

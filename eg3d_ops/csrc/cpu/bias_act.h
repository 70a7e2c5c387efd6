// Bias, activation, gain, clamp and their derivatives on one dense block of memory.
#pragma once

#include "dispatch.h"

namespace eg3d {

enum class BiasActMode {
  value,      // clamp(gain * f(x + b))
  slope,      // dy * gain * f'(x + b), zero where clamped
  sign,       // the slope from y instead of x and b, for f with two linear pieces that meet at 0
  curvature,  // v * dy * gain * f''(x + b), zero where clamped
};

// Element i has the bias `bias[(i / run) % num_bias]`. `run` is either 1 or long enough to load the bias outside of the
// inner loop.
template <class T>
struct BiasActArgs {
  BiasActMode mode;
  int act;     // see activations.h
  const T* x;  // or y, in mode sign
  const T* dy;
  const T* v;
  T* out;
  const T* bias;  // never null; a single zero means no bias
  int64_t run;
  int64_t num_bias;
  T alpha;
  T gain;
  T clamp;  // NaN means no clamp, because no comparison with NaN is true
};

struct BiasActKernels {
  void (*run_float)(const BiasActArgs<float>&, int64_t begin, int64_t end);  // elements [begin, end)
  void (*run_double)(const BiasActArgs<double>&, int64_t begin, int64_t end);
};

EG3D_DECLARE_KERNELS(BiasActKernels, bias_act)

}  // namespace eg3d

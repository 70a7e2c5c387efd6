// What follows a modulated convolution: y = clamp(gain * lrelu(x * scale + noise + bias)) * next, in memory order.
#pragma once

#include "bias_act_kernel.cuh"
#include "modulated_lrelu.h"

namespace eg3d {

// The place of an element. Finding the first takes divisions; from there on, counters are incremented.
struct Place {
  long long image, pixel;
  int channel;

  __device__ Place(const ModulatedLrelu& p, long long index) {
    const long long size = p.pixels * p.channels, within = index % size;
    image = index / size;
    pixel = p.channels_last ? within / p.channels : within % p.pixels;
    channel = (int)(p.channels_last ? within % p.channels : within / p.pixels);
  }

  __device__ void advance(const ModulatedLrelu& p) {
    if (p.channels_last) {
      if (++channel < p.channels) return;
      channel = 0;
      if (++pixel < p.pixels) return;
      pixel = 0;
    } else {
      if (++pixel < p.pixels) return;
      pixel = 0;
      if (++channel < p.channels) return;
      channel = 0;
    }
    ++image;
  }
};

template <class T>
__global__ void __launch_bounds__(256)
    modulated_lrelu_kernel(ModulatedLrelu p, Settings<typename Compute<T>::type> set, const T* x,
                           const typename Compute<T>::type* scale, const typename Compute<T>::type* bias,
                           const typename Compute<T>::type* noise, const typename Compute<T>::type* next, T* y) {
  typedef typename Compute<T>::type F;
  const Span<T> span(p.count, p.aligned);
  if (span.count == 0) return;
  F v[Span<T>::width];
  span.load(x, v);
  Place at(p, span.begin);
#pragma unroll
  for (int i = 0; i < Span<T>::width; ++i) {
    if (i >= span.count) break;
    const long long row = at.image * p.channels + at.channel;
    v[i] = v[i] * scale[row] + bias[at.channel];
    if (noise) v[i] += noise[(p.own_noise ? at.image * p.pixels : 0) + at.pixel];
    v[i] = LeakyRelu<F>{set.alpha}.value(v[i]) * set.gain;
    if (set.clamp >= 0) v[i] = clamped(v[i], set.clamp);
    if (next) v[i] *= next[row];
    at.advance(p);
  }
  span.store(y, v);
}

}  // namespace eg3d

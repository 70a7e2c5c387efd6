// Bias, activation, gain, clamp and their first two derivatives, element by element in memory order.
//
// NaN is propagated: comparisons are written such that NaN takes the branch that returns it.
#pragma once

#include "bias_act.h"
#include "numeric.cuh"

namespace eg3d {

// ----- Activations: f, f', f'' --------------------------------------------------------------------------

template <class F>
__device__ inline F sigmoid_of(F x) {
  const F e = exp_of(-abs_of(x));  // never overflows
  return (x < 0 ? e : F(1)) / (1 + e);
}

template <class F>
struct Linear {
  __device__ F value(F x) const { return x; }
  __device__ F slope(F) const { return 1; }
  __device__ F curvature(F) const { return 0; }
};

template <class F>
struct Relu {
  __device__ F value(F x) const { return x < 0 ? F(0) : x; }
  __device__ F slope(F x) const { return x <= 0 ? 0 : 1; }
  __device__ F curvature(F) const { return 0; }
};

template <class F>
struct LeakyRelu {
  F alpha;
  __device__ F value(F x) const { return x < 0 ? x * alpha : x; }
  __device__ F slope(F x) const { return x > 0 ? F(1) : alpha; }
  __device__ F curvature(F) const { return 0; }
};

template <class F>
struct Tanh {
  __device__ F value(F x) const { return tanh_of(x); }
  __device__ F slope(F x) const { return 1 - value(x) * value(x); }
  __device__ F curvature(F x) const { return -2 * value(x) * slope(x); }
};

template <class F>
struct Sigmoid {
  __device__ F value(F x) const { return sigmoid_of(x); }
  __device__ F slope(F x) const { return sigmoid_of(x) * sigmoid_of(-x); }
  __device__ F curvature(F x) const { return slope(x) * (1 - 2 * value(x)); }
};

// ELU and SELU: scale * x above 0, scale * alpha * (exp(x) - 1) below.
template <class F>
struct Exponential {
  F scale, alpha;
  __device__ F value(F x) const { return scale * (x > 0 ? x : alpha * expm1_of(x)); }
  __device__ F slope(F x) const { return scale * (x > 0 ? F(1) : alpha * exp_of(x)); }
  __device__ F curvature(F x) const { return x > 0 ? F(0) : scale * alpha * exp_of(x); }
};

template <class F>
struct Softplus {
  __device__ F value(F x) const { return (x < 0 ? F(0) : x) + log1p_of(exp_of(-abs_of(x))); }
  __device__ F slope(F x) const { return sigmoid_of(x); }
  __device__ F curvature(F x) const { return sigmoid_of(x) * sigmoid_of(-x); }
};

template <class F>
struct Swish {
  __device__ F value(F x) const { return x * sigmoid_of(x); }
  __device__ F slope(F x) const { return sigmoid_of(x) * (1 + x * sigmoid_of(-x)); }
  __device__ F curvature(F x) const {
    const F s = sigmoid_of(x), rest = sigmoid_of(-x);
    return s * rest * (2 + x * (rest - s));
  }
};

// Settings in the type of the arithmetic. The host converts them: inside a kernel, conversions from float64 would be
// repeated for every element, and most GPUs convert only two numbers per cycle and processor.
template <class F>
struct Settings {
  F alpha, gain, clamp;  // clamp < 0: no clamp
};

// Calls `run` with the activation. All threads take the same branch, once per kernel and not once per element.
template <class F, class Run>
__device__ inline void with_activation(int act, F alpha, const Run& run) {
  switch (act) {
    case 0:
      return run(Linear<F>());
    case 1:
      return run(Relu<F>());
    case 2:
      return run(LeakyRelu<F>{alpha});
    case 3:
      return run(Tanh<F>());
    case 4:
      return run(Sigmoid<F>());
    case 5:
      return run(Exponential<F>{1, 1});
    case 6:
      return run(Exponential<F>{F(1.0507009873554804934), F(1.6732632423543772848)});
    case 7:
      return run(Softplus<F>());
    case 8:
      return run(Swish<F>());
  }
}

// ----- One thread's elements ----------------------------------------------------------------------------

// The `count` elements of one thread, starting at `begin`. Except at the end of the tensor, `count` is `width`.
template <class T>
struct Span {
  typedef typename Compute<T>::type F;
  static constexpr int width = Width<T>::value;
  long long begin;
  int count;
  bool whole;  // can be loaded and stored as one chunk

  __device__ Span(long long elements, bool aligned) {
    begin = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * width;
    const long long left = elements - begin;
    count = left < 0 ? 0 : left < width ? (int)left : width;
    whole = aligned && count == width;
  }

  __device__ void load(const T* from, F (&to)[width]) const {
    Chunk<T, width> chunk;
    if (whole) chunk = *reinterpret_cast<const Chunk<T, width>*>(from + begin);
#pragma unroll
    for (int i = 0; i < width; ++i) to[i] = whole ? widen(chunk.at[i]) : i < count ? widen(from[begin + i]) : F(0);
  }

  __device__ void store(T* to, const F (&from)[width]) const {
    Chunk<T, width> chunk;
#pragma unroll
    for (int i = 0; i < width; ++i) chunk.at[i] = narrow<T>(from[i]);
    if (whole) {
      *reinterpret_cast<Chunk<T, width>*>(to + begin) = chunk;
      return;
    }
#pragma unroll
    for (int i = 0; i < width; ++i)
      if (i < count) to[begin + i] = chunk.at[i];
  }

  // Loads x + b. Finding the bias of the first element takes two divisions; from there on, counters are incremented.
  __device__ void load_biased(const BiasAct& p, const T* x, const T* b, F (&to)[width]) const {
    load(x, to);
    if (!b) return;
    long long channel, within;
    if (p.count <= 0xffffffffLL) {  // 32-bit division is several times cheaper
      const unsigned quotient = (unsigned)begin / (unsigned)p.stride;
      within = (unsigned)begin - quotient * (unsigned)p.stride;
      channel = quotient % (unsigned)p.channels;
    } else {
      within = begin % p.stride;
      channel = begin / p.stride % p.channels;
    }
#pragma unroll
    for (int i = 0; i < width; ++i) {
      to[i] += widen(b[channel]);
      if (++within == p.stride) {
        within = 0;
        if (++channel == p.channels) channel = 0;
      }
    }
  }
};

template <class F>
__device__ inline F clamped(F y, F limit) {
  return y > limit ? limit : y < -limit ? -limit : y;
}

// Returns the clamp rounded to type T, so that a stored y at the limit is recognised.
template <class T>
__device__ inline typename Compute<T>::type stored_clamp(typename Compute<T>::type clamp) {
  return widen(narrow<T>(clamp));
}

// ----- Kernels ------------------------------------------------------------------------------------------

// y = clamp(gain * f(x + b)); b may be null.
template <class T>
__global__ void __launch_bounds__(256)
    bias_act_kernel(BiasAct p, Settings<typename Compute<T>::type> set, const T* x, const T* b, T* y) {
  typedef typename Compute<T>::type F;
  const Span<T> span(p.count, p.aligned);
  if (span.count == 0) return;
  F v[Span<T>::width];
  span.load_biased(p, x, b, v);
  with_activation<F>(p.act, set.alpha, [&](const auto& f) {
#pragma unroll
    for (int i = 0; i < Span<T>::width; ++i) {
      v[i] = f.value(v[i]) * set.gain;
      if (set.clamp >= 0) v[i] = clamped(v[i], set.clamp);
    }
  });
  span.store(y, v);
}

// dx = dy * gain * f'(x + b), zero where clamped. The caller gives x, or y, or neither. y is enough if f has two linear
// pieces, because its sign and size then determine f' and the clamp. Neither is needed if f is linear without clamp.
template <class T>
__global__ void __launch_bounds__(256) bias_act_grad_kernel(BiasAct p, Settings<typename Compute<T>::type> set,
                                                            const T* dy, const T* x, const T* b, const T* y, T* dx) {
  typedef typename Compute<T>::type F;
  const Span<T> span(p.count, p.aligned);
  if (span.count == 0) return;
  F v[Span<T>::width], d[Span<T>::width];
  span.load(dy, d);
  if (y)
    span.load(y, v);
  else if (x)
    span.load_biased(p, x, b, v);
  const F limit = y ? stored_clamp<T>(set.clamp) : set.clamp;
  with_activation<F>(p.act, set.alpha, [&](const auto& f) {
#pragma unroll
    for (int i = 0; i < Span<T>::width; ++i) {
      const F at = x || y ? v[i] : F(0);
      const F out = y ? at : f.value(at) * set.gain;
      const bool flat = set.clamp >= 0 && abs_of(out) >= limit;
      d[i] = flat ? F(0) : d[i] * set.gain * f.slope(at);
    }
  });
  span.store(dx, d);
}

// v * dy * gain * f''(x + b), zero where clamped.
template <class T>
__global__ void __launch_bounds__(256) bias_act_grad2_kernel(BiasAct p, Settings<typename Compute<T>::type> set,
                                                             const T* v, const T* dy, const T* x, const T* b, T* out) {
  typedef typename Compute<T>::type F;
  const Span<T> span(p.count, p.aligned);
  if (span.count == 0) return;
  F at[Span<T>::width], a[Span<T>::width], d[Span<T>::width];
  span.load_biased(p, x, b, at);
  span.load(v, a);
  span.load(dy, d);
  with_activation<F>(p.act, set.alpha, [&](const auto& f) {
#pragma unroll
    for (int i = 0; i < Span<T>::width; ++i) {
      const bool flat = set.clamp >= 0 && abs_of(f.value(at[i]) * set.gain) >= set.clamp;
      a[i] = flat ? F(0) : a[i] * d[i] * set.gain * f.curvature(at[i]);
    }
  });
  span.store(out, a);
}

}  // namespace eg3d

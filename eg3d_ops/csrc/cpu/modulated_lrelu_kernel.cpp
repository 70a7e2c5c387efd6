// modulated_lrelu for a range of pixels or channels, compiled once per instruction set.
#include "modulated_lrelu.h"
#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

template <class V, class T>
EG3D_INLINE V activated(const ModulatedLrelu<T>& p, V v) {
  const V slope = p.alpha - V{}, limit = p.clamp - V{};
  const V y = (v < 0 ? v * slope : v) * (p.gain - V{});
  const V below = y > limit ? limit : y;
  return below < -limit ? -limit : below;
}

// Computes one pixel of all channels.
template <class T>
static void pixel(const ModulatedLrelu<T>& p, const T* x, const T* scale, const T* next, T noise, T* y) {
  constexpr int lanes = VectorOf<T>::lanes;
  int64_t c = 0;
  for (; c + lanes <= p.channels; c += lanes) {
    const Vec<T> v = activated(p, load(x + c) * load(scale + c) + (load(p.bias + c) + noise));
    store(y + c, next ? v * load(next + c) : v);
  }
  for (; c < p.channels; ++c) {
    const Vec<T> v = activated(p, (x[c] * scale[c] + (p.bias[c] + noise)) - Vec<T>{});
    y[c] = next ? v[0] * next[c] : v[0];
  }
}

// Computes one channel of all pixels.
template <class T>
static void channel(const ModulatedLrelu<T>& p, const T* x, T scale, T bias, T next, const T* noise, T* y) {
  constexpr int lanes = VectorOf<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= p.pixels; i += lanes) {
    const Vec<T> v = load(x + i) * scale + (noise ? load(noise + i) + bias : bias - Vec<T>{});
    store(y + i, activated(p, v) * next);
  }
  for (; i < p.pixels; ++i) y[i] = activated(p, (x[i] * scale + (noise ? noise[i] + bias : bias)) - Vec<T>{})[0] * next;
}

template <class T>
static void run(const ModulatedLrelu<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (p.channels_last) {
      const int64_t n = i / p.pixels, at = i % p.pixels, offset = i * p.channels;
      const T* const next = p.next ? p.next + n * p.channels : nullptr;
      const T noise = p.noise ? p.noise[n * p.noise_step + at] : T(0);
      pixel(p, p.x + offset, p.scale + n * p.channels, next, noise, p.y + offset);
    } else {
      const int64_t n = i / p.channels, offset = i * p.pixels;
      const T* const noise = p.noise ? p.noise + n * p.noise_step : nullptr;
      channel(p, p.x + offset, p.scale[i], p.bias[i % p.channels], p.next ? p.next[i] : T(1), noise, p.y + offset);
    }
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(ModulatedLreluKernels, modulated_lrelu) = {EG3D_ISA::run<float>, EG3D_ISA::run<double>};

}  // namespace eg3d

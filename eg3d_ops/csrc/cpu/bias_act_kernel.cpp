// bias_act and its derivatives, compiled once per instruction set.
#include "activations.h"
#include "bias_act.h"

namespace eg3d {
namespace EG3D_ISA {

EG3D_INLINE double load(const double* p) { return *p; }
EG3D_INLINE void store(double* p, double v) { *p = v; }

template <class T>
struct Wide {  // the operand of one step
  typedef vf type;
  static constexpr int lanes = VL;
};
template <>
struct Wide<double> {  // float64 only serves gradient checks, so it is not vectorised
  typedef double type;
  static constexpr int lanes = 1;
};

template <BiasActMode mode, class Act, class T>
struct Element {
  typedef typename Wide<T>::type V;
  V alpha, gain, clamp;

  explicit inline __attribute__((always_inline)) Element(const BiasActArgs<T>& a)
      : alpha(a.alpha - V{}), gain(a.gain - V{}), clamp(a.clamp - V{}) {}

  inline __attribute__((always_inline)) V operator()(V x, V bias, V dy, V v) const {
    const Jet<V> f = Act::at(mode == BiasActMode::sign ? x : x + bias, alpha);
    const V y = mode == BiasActMode::sign ? x : f.value * gain;
    if constexpr (mode == BiasActMode::value) {
      const V below = y > clamp ? clamp : y;
      return below < -clamp ? -clamp : below;
    } else if constexpr (mode == BiasActMode::curvature) {
      return magnitude(y) >= clamp ? V{} : v * dy * (f.curvature * gain);
    } else {
      return magnitude(y) >= clamp ? V{} : dy * (f.slope * gain);
    }
  }
};

// Computes elements [begin, end). They share one bias (bias_step 0) or have one each (bias_step 1).
template <BiasActMode mode, class Act, class T>
static void segment(const BiasActArgs<T>& a, int64_t begin, int64_t end, const T* bias, int bias_step) {
  constexpr int lanes = Wide<T>::lanes;
  constexpr bool needs_dy = mode != BiasActMode::value, needs_v = mode == BiasActMode::curvature;
  typedef typename Wide<T>::type V;
  const Element<mode, Act, T> element(a);
  T spread[lanes];
  if (bias_step == 0) {
    for (int i = 0; i < lanes; ++i) spread[i] = *bias;
    bias = spread;
  }
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    const V b = load(bias + bias_step * (i - begin));
    const V dy = needs_dy ? load(a.dy + i) : V{}, v = needs_v ? load(a.v + i) : V{};
    store(a.out + i, element(load(a.x + i), b, dy, v));
  }
  if (i == end) return;
  T x[lanes] = {}, b[lanes] = {}, dy[lanes] = {}, v[lanes] = {}, out[lanes];
  for (int k = 0; k < end - i; ++k) {
    x[k] = a.x[i + k];
    b[k] = bias[bias_step * (i - begin + k)];
    if (needs_dy) dy[k] = a.dy[i + k];
    if (needs_v) v[k] = a.v[i + k];
  }
  store(out, element(load(x), load(b), load(dy), load(v)));
  for (int k = 0; k < end - i; ++k) a.out[i + k] = out[k];
}

template <BiasActMode mode, class Act, class T>
static void sweep(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  const int64_t length = a.run == 1 ? a.num_bias : a.run;  // of a segment
  while (begin < end) {
    const int64_t inside = begin % length;
    const int64_t stop = begin + length - inside < end ? begin + length - inside : end;
    const T* bias = a.bias + (a.run == 1 ? inside : (begin / length) % a.num_bias);
    segment<mode, Act>(a, begin, stop, bias, a.run == 1);
    begin = stop;
  }
}

template <class Act, class T>
static void run_act(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  switch (a.mode) {
    case BiasActMode::value:
      return sweep<BiasActMode::value, Act>(a, begin, end);
    case BiasActMode::slope:
      return sweep<BiasActMode::slope, Act>(a, begin, end);
    case BiasActMode::sign:
      return sweep<BiasActMode::sign, Act>(a, begin, end);
    case BiasActMode::curvature:
      return sweep<BiasActMode::curvature, Act>(a, begin, end);
  }
}

template <class T>
static void run(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  switch (a.act) {
    case 0:
      return run_act<Linear>(a, begin, end);
    case 1:
      return run_act<Relu>(a, begin, end);
    case 2:
      return run_act<LeakyRelu>(a, begin, end);
    case 3:
      return run_act<Tanh>(a, begin, end);
    case 4:
      return run_act<Sigmoid>(a, begin, end);
    case 5:
      return run_act<Elu>(a, begin, end);
    case 6:
      return run_act<Selu>(a, begin, end);
    case 7:
      return run_act<Softplus>(a, begin, end);
    case 8:
      return run_act<Swish>(a, begin, end);
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(BiasActKernels, bias_act) = {EG3D_ISA::run<float>, EG3D_ISA::run<double>};

}  // namespace eg3d

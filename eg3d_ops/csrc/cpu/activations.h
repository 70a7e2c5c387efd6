// The activation functions with their first two derivatives, for vectors of float and for double.
//
// All of them propagate NaN, whatever its payload.
#pragma once

#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

template <class V>
struct Exp {
  V value;      // exp(x)
  V minus_one;  // exp(x) - 1, accurate to the last bits even near 0
};

// Requires x <= 0; accurate to 2 ulp.
EG3D_INLINE Exp<vf> exp_nonpositive(vf x) {
  const ExpParts e = exp_parts(vmax(x, splat(-86.6f)));  // the result is never subnormal
  return {e.scale * e.rest + e.scale, e.scale * e.rest + (e.scale - 1.f)};
}
EG3D_INLINE Exp<double> exp_nonpositive(double x) { return {__builtin_exp(x), __builtin_expm1(x)}; }

EG3D_INLINE vf log1p_unit(vf e) { return vlog1p_unit(e); }  // log(1 + e) for e in [0, 1]
EG3D_INLINE double log1p_unit(double e) { return __builtin_log1p(e); }

EG3D_INLINE vf magnitude(vf a) { return vabs(a); }
EG3D_INLINE double magnitude(double a) { return __builtin_fabs(a); }

EG3D_INLINE vf constant_like(vf, double c) { return splat((float)c); }
EG3D_INLINE double constant_like(double, double c) { return c; }
template <class V>
EG3D_INLINE V constant(double c) {
  return constant_like(V{}, c);
}

// f(z), f'(z), f''(z).
template <class V>
struct Jet {
  V value, slope, curvature;
};

struct Linear {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    return {z, constant<V>(1), V{}};
  }
};

struct Relu {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    return {z < 0.f ? V{} : z, z <= 0.f ? V{} : constant<V>(1), V{}};
  }
};

struct LeakyRelu {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V alpha) {
    return {z < 0.f ? z * alpha : z, z > 0.f ? constant<V>(1) : alpha, V{}};
  }
};

struct Tanh {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    const V m = exp_nonpositive(-2.f * magnitude(z)).minus_one;
    const V t = m / (m + 2.f);  // -tanh|z|
    const V value = z < 0.f ? t : -t, slope = 1.f - t * t;
    return {value, slope, -2.f * value * slope};
  }
};

struct Sigmoid {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    const V e = exp_nonpositive(-magnitude(z)).value;
    const V r = 1.f / (1.f + e);
    const V value = z < 0.f ? e * r : r, slope = e * r * r;
    return {value, slope, slope * (1.f - 2.f * value)};
  }
};

// ELU and SELU: lambda * z above 0 and lambda * alpha * (exp(z) - 1) up to 0.
template <class V>
EG3D_INLINE Jet<V> exponential_unit(V z, double lambda, double lambda_alpha) {
  const V positive = constant<V>(lambda), negative = constant<V>(lambda_alpha);
  const Exp<V> e = exp_nonpositive(z > 0.f ? V{} : z);
  return {z > 0.f ? positive * z : negative * e.minus_one, z > 0.f ? positive : negative * e.value,
          z > 0.f ? V{} : negative * e.value};
}

struct Elu {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    return exponential_unit(z, 1, 1);
  }
};

struct Selu {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V) {
    constexpr double lambda = 1.0507009873554804934, alpha = 1.6732632423543772848;  // torch.nn.SELU
    return exponential_unit(z, lambda, lambda * alpha);
  }
};

struct Softplus {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V alpha) {
    const Jet<V> sigmoid = Sigmoid::at(z, alpha);
    const V e = exp_nonpositive(-magnitude(z)).value;
    return {(z < 0.f ? V{} : z) + log1p_unit(e), sigmoid.value, sigmoid.slope};
  }
};

struct Swish {
  template <class V>
  EG3D_INLINE Jet<V> at(V z, V alpha) {
    const Jet<V> sigmoid = Sigmoid::at(z, alpha);
    return {z * sigmoid.value, sigmoid.value + z * sigmoid.slope, 2.f * sigmoid.slope + z * sigmoid.curvature};
  }
};

}  // namespace EG3D_ISA
}  // namespace eg3d

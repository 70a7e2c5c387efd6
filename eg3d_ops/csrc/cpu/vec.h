// Vectors based on the compiler's own vector types: one source serves AVX-512, AVX2 and all other processors.
//
// All functions of the kernels are in a namespace named after their instruction set, and the kernels include no
// standard header with inline code. Otherwise the linker could keep the AVX-512 copy of a shared inline function for
// the portable path.
#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
#define EG3D_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define EG3D_VECTOR_BYTES 32
#else
#define EG3D_VECTOR_BYTES 16
#endif

#define EG3D_INLINE static inline __attribute__((always_inline))

namespace eg3d {
namespace EG3D_ISA {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(EG3D_VECTOR_BYTES)));
  typedef T unaligned __attribute__((vector_size(EG3D_VECTOR_BYTES), aligned(alignof(T)), may_alias));
  static constexpr int lanes = EG3D_VECTOR_BYTES / sizeof(T);
};

template <class T>
using Vec = typename VectorOf<T>::type;
using vf = Vec<float>;
using vi = Vec<int32_t>;
constexpr int VL = VectorOf<float>::lanes;

template <class T>
EG3D_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}

template <class T>
EG3D_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

EG3D_INLINE vf splat(float s) { return s - vf{}; }

EG3D_INLINE float horizontal_sum(vf v) {
  typedef float quad __attribute__((vector_size(16)));
  quad part[VL / 4];
  __builtin_memcpy(part, &v, sizeof(v));
  for (int i = 1; i < VL / 4; ++i) part[0] += part[i];
  return (part[0][0] + part[0][1]) + (part[0][2] + part[0][3]);
}

// Comparisons of vectors give -1/0 masks; `c ? a : b` selects with them. If the compared value is NaN, the mask is 0
// and b is selected, so b must be the argument that may be NaN.
EG3D_INLINE vf vmin(vf a, vf limit) { return a > limit ? limit : a; }
EG3D_INLINE vf vmax(vf a, vf limit) { return a < limit ? limit : a; }
EG3D_INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }

// The polynomials below are minimax fits (iteratively reweighted least squares in float64).

// exp(x) = scale * (1 + rest), for x in [-87, 88]: scale is a power of 2, rest lies in [-0.3, 0.42].
struct ExpParts {
  vf scale, rest;
};
EG3D_INLINE ExpParts exp_parts(vf x) {
  const vf magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const vf shifted = x * 1.44269504f + magic;
  const vf k = shifted - magic;
  const vf r = (x - k * 0.693359375f) + k * 2.12194440e-4f;  // ln 2 in two parts, so that r is exact
  vf p = splat(0.0013950726f);
  p = p * r + 0.00836902495f;
  p = p * r + 0.04166620228f;
  p = p * r + 0.16666517711f;
  p = p * r + 0.50000000963f;  // (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2]; exp(r) to 3e-9 before rounding
  const vi power = ((vi)shifted << 23) + 0x3f800000;  // the low bits of `shifted` are k: this is 2^k
  return {(vf)power, p * (r * r) + r};
}

// exp(x) to 2 ulp; x is clamped, so the result is never subnormal or infinite. NaN stays NaN.
EG3D_INLINE vf vexp(vf x) {
  const ExpParts e = exp_parts(vmax(vmin(x, splat(88.f)), splat(-87.f)));
  return e.scale * e.rest + e.scale;
}

// log(1 + e) for e in [0, 1], relative error 3e-8 before rounding.
EG3D_INLINE vf vlog1p_unit(vf e) {
  vf p = splat(0.0052326937f);
  p = p * e - 0.02950524011f;
  p = p * e + 0.07822596093f;
  p = p * e - 0.13663247281f;
  p = p * e + 0.19106007904f;
  p = p * e - 0.24842982669f;
  p = p * e + 0.33319096899f;
  p = p * e - 0.49999493149f;
  p = p * e + 0.99999996988f;
  return p * e;
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)); beyond 20 this is x to the last bit, as in torch.
EG3D_INLINE vf vsoftplus(vf x) { return (x < 0.f ? vf{} : x) + vlog1p_unit(vexp(-vabs(x))); }

// 1 / (1 + exp(-x)) without overflow.
EG3D_INLINE vf vsigmoid(vf x) {
  const vf e = vexp(-vabs(x));
  return (x < 0.f ? e : splat(1.f)) / (1.f + e);
}

}  // namespace EG3D_ISA
}  // namespace eg3d

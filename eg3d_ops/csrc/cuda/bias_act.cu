// Launchers of bias_act and its derivatives.
#include "bias_act_kernel.cuh"
#include "launch.h"

namespace eg3d {
namespace {

bool aligned(const void* p) { return reinterpret_cast<size_t>(p) % 16 == 0; }

// Returns the grid: enough blocks of 256 threads for all elements.
template <class T>
dim3 blocks(const BiasAct& p) {
  const long long per_block = 256LL * Width<T>::value;
  const long long count = (p.count + per_block - 1) / per_block;
  if (count > 0x7fffffffLL) fail("bias_act takes fewer than 2^41 elements, got " + std::to_string(p.count));
  return dim3((unsigned)count);
}

template <class T>
auto settings(const BiasAct& p) {
  typedef typename Compute<T>::type F;
  return Settings<F>{(F)p.alpha, (F)p.gain, (F)p.clamp};
}

}  // namespace

void launch_bias_act(ElementType type, BiasAct p, const void* x, const void* b, void* y, void* stream) {
  p.aligned = aligned(x) && aligned(y);
  with_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("bias_act_kernel", bias_act_kernel<T>, blocks<T>(p), 256, 0, stream, p, settings<T>(p), (const T*)x,
           (const T*)b, (T*)y);
  });
}

void launch_bias_act_grad(ElementType type, BiasAct p, const void* dy, const void* x, const void* b, const void* y,
                          void* dx, void* stream) {
  p.aligned = aligned(dy) && aligned(x) && aligned(y) && aligned(dx);
  with_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("bias_act_grad_kernel", bias_act_grad_kernel<T>, blocks<T>(p), 256, 0, stream, p, settings<T>(p),
           (const T*)dy, (const T*)x, (const T*)b, (const T*)y, (T*)dx);
  });
}

void launch_bias_act_grad2(ElementType type, BiasAct p, const void* v, const void* dy, const void* x, const void* b,
                           void* out, void* stream) {
  p.aligned = aligned(v) && aligned(dy) && aligned(x) && aligned(out);
  with_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("bias_act_grad2_kernel", bias_act_grad2_kernel<T>, blocks<T>(p), 256, 0, stream, p, settings<T>(p),
           (const T*)v, (const T*)dy, (const T*)x, (const T*)b, (T*)out);
  });
}

}  // namespace eg3d

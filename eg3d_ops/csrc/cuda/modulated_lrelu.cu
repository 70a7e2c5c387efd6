// Launcher of modulated_lrelu.
#include "launch.h"
#include "modulated_lrelu_kernel.cuh"

namespace eg3d {

void launch_modulated_lrelu(ElementType type, ModulatedLrelu p, const void* x, const void* scale, const void* bias,
                            const void* noise, const void* next, void* y, void* stream) {
  p.aligned = reinterpret_cast<size_t>(x) % 16 == 0 && reinterpret_cast<size_t>(y) % 16 == 0;
  with_element(type, [&](auto zero) {
    using T = decltype(zero);
    typedef typename Compute<T>::type F;
    const Settings<F> set{(F)p.alpha, (F)p.gain, (F)p.clamp};
    const long long per_block = 256LL * Width<T>::value, blocks = (p.count + per_block - 1) / per_block;
    if (blocks > 0x7fffffffLL) fail("modulated_lrelu takes fewer than 2^41 elements, got " + std::to_string(p.count));
    launch("modulated_lrelu_kernel", modulated_lrelu_kernel<T>, dim3((unsigned)blocks), 256, 0, stream, p, set,
           (const T*)x, (const F*)scale, (const F*)bias, (const F*)noise, (const F*)next, (T*)y);
  });
}

}  // namespace eg3d

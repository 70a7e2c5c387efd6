// Subnormal floats, those below 1.2e-38. Many processors compute with them far more slowly than with other floats.
#pragma once

#include <stdint.h>

namespace eg3d {

// Makes the thread that constructs it treat subnormal floats as zero, in arguments and results, until it is destroyed.
class SubnormalsAsZero {
 public:
  SubnormalsAsZero() : before_(control()) { set_control(before_ | kAsZero); }
  ~SubnormalsAsZero() { set_control(before_); }
  SubnormalsAsZero(const SubnormalsAsZero&) = delete;
  SubnormalsAsZero& operator=(const SubnormalsAsZero&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kAsZero = 0x8040;  // MXCSR: flush to zero (results), denormals are zeros (arguments)
  static uint64_t control() { return __builtin_ia32_stmxcsr(); }
  static void set_control(uint64_t bits) { __builtin_ia32_ldmxcsr((unsigned)bits); }
#elif defined(__aarch64__)
  static constexpr uint64_t kAsZero = 1 << 24;  // FPCR: FZ, which is for both
  static uint64_t control() {
    uint64_t bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
  }
  static void set_control(uint64_t bits) { asm volatile("msr fpcr, %0" ::"r"(bits)); }
#else
  static constexpr uint64_t kAsZero = 0;  // no such mode is known: subnormal floats are computed as they are
  static uint64_t control() { return 0; }
  static void set_control(uint64_t) {}
#endif

  const uint64_t before_;
};

}  // namespace eg3d

// Chooses the instruction set of the CPU kernels when the library is loaded.
#include "dispatch.h"

#include <atomic>

namespace eg3d {

#if defined(__x86_64__)
static constexpr int num_isas = 3;
static bool supported(int isa) {
  __builtin_cpu_init();
  if (isa == 2)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
  return isa == 0 || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}
#else
static constexpr int num_isas = 1;
static bool supported(int) { return true; }
#endif

static int best() {
  int isa = num_isas - 1;
  while (!supported(isa)) --isa;
  return isa;
}
static std::atomic<int> current{best()};

int cpu_isa() { return current.load(std::memory_order_relaxed); }

}  // namespace eg3d

// Returns the instruction set in use. A request >= 0 changes it; -1 only queries it. Returns -1 if this processor or
// this build does not support the requested instruction set.
extern "C" __attribute__((visibility("default"))) int eg3d_ops_cpu_isa(int request) {
  if (request >= eg3d::num_isas || (request >= 0 && !eg3d::supported(request))) return -1;
  if (request >= 0) eg3d::current = request;
  return eg3d::cpu_isa();
}

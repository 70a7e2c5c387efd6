// Tables of kernels, one per op and instruction set. The table to use is chosen at run time.
//
// A kernel processes a range [begin, end) of its work units, so that the bindings can distribute ranges over torch's
// own thread pool. It takes plain pointers and sizes, never a tensor. `<op>_kernel.cpp` is compiled once per
// instruction set, with EG3D_ISA as the name of the set, and defines the table `<op>_<isa>`.
#pragma once

#include <stdint.h>

namespace eg3d {

int cpu_isa();  // index of the instruction set in use: 0 portable, 1 avx2, 2 avx512

}  // namespace eg3d

#define EG3D_JOIN_(a, b) a##b
#define EG3D_JOIN(a, b) EG3D_JOIN_(a, b)

// Declares the tables of type `Table` of the op `name`, and `name##_kernels()`, which returns the one in use.
#if defined(__x86_64__)
#define EG3D_DECLARE_KERNELS(Table, name)                                           \
  extern const Table name##_portable, name##_avx2, name##_avx512;                   \
  static inline const Table& name##_kernels() {                                     \
    const Table* const tables[] = {&name##_portable, &name##_avx2, &name##_avx512}; \
    return *tables[cpu_isa()];                                                      \
  }
#else
#define EG3D_DECLARE_KERNELS(Table, name) \
  extern const Table name##_portable;     \
  static inline const Table& name##_kernels() { return name##_portable; }
#endif

// Starts the definition of the table for the instruction set being compiled.
#define EG3D_DEFINE_KERNELS(Table, name) const Table EG3D_JOIN(name##_, EG3D_ISA)

// The working memory of a thread: one aligned block that is handed out in pieces.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

class Scratch {
 public:
  explicit Scratch(int64_t floats) : base_((float*)aligned_alloc(64, (floats * sizeof(float) + 4095) / 4096 * 4096)) {
    if (!base_) __builtin_trap();  // no memory for a few hundred kilobytes: cannot continue
    for (int64_t i = 0; i < floats; ++i)
      base_[i] = 0.f;  // elements beyond a ray's end are computed too; subnormal garbage would be slow
    next_ = base_;
  }
  ~Scratch() { free(base_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T = float>
  T* take(int64_t count) {
    T* piece = (T*)next_;
    next_ += padded(count);
    return piece;
  }
  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

 private:
  float* base_;
  float* next_;
};

}  // namespace EG3D_ISA
}  // namespace eg3d

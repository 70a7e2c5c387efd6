// A thread's working memory: one aligned block, handed out in pieces.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

class Scratch {
 public:
  explicit Scratch(int64_t floats) : base_((float*)aligned_alloc(64, (floats * sizeof(float) + 4095) / 4096 * 4096)) {
    if (!base_) __builtin_trap();  // a few hundred kilobytes: nothing sensible is left to do
    for (int64_t i = 0; i < floats; ++i)
      base_[i] = 0.f;  // what is computed beyond a ray's end must not be slow garbage
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

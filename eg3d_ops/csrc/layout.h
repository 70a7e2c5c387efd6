// Checks and conversions of tensor layouts, shared by the CPU and CUDA bindings.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace eg3d {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_same_shape(const char* name, const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), name, ": dtypes differ");
  bool same = a.dim() == b.dim();
  for (int64_t d = 0; same && d < a.dim(); ++d) same = a.size(d) == b.size(d);
  STD_TORCH_CHECK(same, name, ": shapes differ");
}

// Returns `t` itself if its elements lie in memory like those of `like`, otherwise a copy that does. `like` must be
// dense.
inline Tensor in_layout_of(const Tensor& like, const Tensor& t) {
  bool same = true;
  for (int64_t d = 0; d < t.dim(); ++d) same &= t.size(d) == 1 || t.stride(d) == like.stride(d);
  if (same || t.numel() == 0) return t;
  Tensor moved = torch::stable::empty_like(like);
  torch::stable::copy_(moved, t);
  return moved;
}

// Returns whether `t` is [N, C, H, W] with channels innermost in memory, and not also contiguous in the usual order.
inline bool only_channels_last(const Tensor& t) {
  if (t.dim() != 4 || t.numel() == 0 || t.is_contiguous()) return false;
  int64_t expected = 1;
  for (int d : {1, 3, 2, 0}) {
    if (t.size(d) == 1) continue;
    if (t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

}  // namespace eg3d

// What the bindings ask of tensors.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "common.h"

namespace eg3d {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ElementType element_type(const char* op, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half: return ElementType::float16;
    case ScalarType::BFloat16: return ElementType::bfloat16;
    case ScalarType::Float: return ElementType::float32;
    case ScalarType::Double: return ElementType::float64;
    default: STD_TORCH_CHECK(false, op, " (CUDA): takes float16, bfloat16, float32 or float64");
  }
  return ElementType::float32;  // never reached
}

inline void check_same_device(const char* op, const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(a.get_device_index() == b.get_device_index() && a.is_cuda() == b.is_cuda(), op,
                  " (CUDA): tensors are on different devices");
}

inline void check_same_shape(const char* op, const Tensor& a, const Tensor& b) {
  bool same = a.dim() == b.dim() && a.scalar_type() == b.scalar_type();
  for (int64_t d = 0; same && d < a.dim(); ++d) same = a.size(d) == b.size(d);
  STD_TORCH_CHECK(same, op, " (CUDA): shapes or dtypes differ");
  check_same_device(op, a, b);
}

// `t` itself if its elements lie where those of `like` do, else a copy that does; `like` must be dense.
inline Tensor in_layout_of(const Tensor& like, const Tensor& t) {
  bool same = true;
  for (int64_t d = 0; d < t.dim(); ++d) same &= t.size(d) == 1 || t.stride(d) == like.stride(d);
  if (same || t.numel() == 0) return t;
  Tensor moved = torch::stable::empty_like(like);
  torch::stable::copy_(moved, t);
  return moved;
}

// [N, C, H, W] with C fastest, and not also contiguous in the usual order.
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

inline const void* data_or_null(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}

}  // namespace eg3d

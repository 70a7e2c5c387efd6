// Tensor checks and conversions of the CUDA bindings.
#pragma once

#include <optional>

#include "../layout.h"
#include "common.h"

namespace eg3d {

inline ElementType element_type(const char* op, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return ElementType::float16;
    case ScalarType::BFloat16:
      return ElementType::bfloat16;
    case ScalarType::Float:
      return ElementType::float32;
    case ScalarType::Double:
      return ElementType::float64;
    default:
      STD_TORCH_CHECK(false, op, " (CUDA): takes float16, bfloat16, float32 or float64");
  }
  return ElementType::float32;  // never reached
}

inline void check_same_device(const char* op, const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(a.get_device_index() == b.get_device_index() && a.is_cuda() == b.is_cuda(), op,
                  " (CUDA): tensors are on different devices");
}

inline void check_alike(const char* op, const Tensor& a, const Tensor& b) {
  check_same_shape(op, a, b);
  check_same_device(op, a, b);
}

inline const void* data_or_null(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}

}  // namespace eg3d

// Replaces the file of this name of the bindings, because this folder is first in the include path. Here the device is
// the host. The ops become CPU ops of a separate library, so that they can be loaded next to the real CPU ops.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#define CUDA CPU
#define eg3d_ops eg3d_emulated

namespace eg3d {

struct OnDeviceOf {
  void* stream = nullptr;
  explicit OnDeviceOf(const torch::stable::Tensor&) {}
};

}  // namespace eg3d

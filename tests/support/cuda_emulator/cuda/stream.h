// Found before the file of this name beside the bindings: here the device is the host. The ops become CPU ops of
// a library of their own, so that they live beside the real CPU ops.
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

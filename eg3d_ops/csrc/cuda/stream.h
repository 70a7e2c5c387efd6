// The device and the stream on which an op runs. The tests replace this file by one that uses the host as the device.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

// torch declares this only if USE_CUDA is defined.
extern "C" AOTI_TORCH_EXPORT AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace eg3d {

// Makes the device of `t` the current one as long as this object exists. `stream` is torch's current stream on it.
class OnDeviceOf {
 public:
  void* stream = nullptr;

  explicit OnDeviceOf(const torch::stable::Tensor& t) : guard_(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace eg3d

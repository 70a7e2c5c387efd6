// modulated_lrelu for tensors on a GPU. modulated_lrelu.py defines the schema.
#include <torch/csrc/stable/library.h>

#include "cuda/stream.h"
#include "modulated_lrelu.h"
#include "tensors.h"

namespace eg3d {
namespace {

using Optional = std::optional<Tensor>;

Tensor dense(const Tensor& t, const Tensor& x, int64_t numbers) {
  const ScalarType inner = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(t.scalar_type() == inner && t.numel() == numbers, "modulated_lrelu (CUDA): a part does not fit x");
  check_same_device("modulated_lrelu", t, x);
  return torch::stable::contiguous(t);
}

Tensor modulated_lrelu(const Tensor& x_in, const Tensor& scale_in, const Tensor& b_in, const Optional& noise_in,
                       const Optional& next_in, double alpha, double gain, double clamp) {
  STD_TORCH_CHECK(x_in.dim() == 4, "modulated_lrelu (CUDA): x must have rank 4, got ", x_in.dim());
  const OnDeviceOf device(x_in);
  const int64_t n = x_in.size(0), channels = x_in.size(1), pixels = x_in.size(2) * x_in.size(3);
  ModulatedLrelu p{};
  p.channels_last = only_channels_last(x_in);
  const Tensor x = p.channels_last ? x_in : torch::stable::contiguous(x_in), y = torch::stable::empty_like(x);
  if (y.numel() == 0) return y;
  p.own_noise = noise_in && noise_in->dim() == 4;
  const Tensor scale = dense(scale_in, x, n * channels), b = dense(b_in, x, channels);
  const Optional noise = noise_in ? Optional(dense(*noise_in, x, p.own_noise ? n * pixels : pixels)) : noise_in;
  const Optional next = next_in ? Optional(dense(*next_in, x, n * channels)) : next_in;
  p.count = y.numel(), p.pixels = pixels, p.channels = static_cast<int>(channels);
  p.alpha = alpha, p.gain = gain, p.clamp = clamp;
  launch_modulated_lrelu(element_type("modulated_lrelu", x), p, x.const_data_ptr(), scale.const_data_ptr(),
                         b.const_data_ptr(), data_or_null(noise), data_or_null(next), y.mutable_data_ptr(),
                         device.stream);
  return y;
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CUDA, m) { m.impl("modulated_lrelu", TORCH_BOX(&eg3d::modulated_lrelu)); }

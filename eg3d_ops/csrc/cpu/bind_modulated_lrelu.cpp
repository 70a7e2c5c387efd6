// modulated_lrelu for tensors on the CPU. modulated_lrelu.py defines the schema.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "../layout.h"
#include "huge_pages.h"
#include "modulated_lrelu.h"

namespace eg3d {
namespace {

using Optional = std::optional<Tensor>;

constexpr int64_t grain = 16384;  // fewest numbers that justify a thread

Tensor dense(const Tensor& t, const Tensor& x, int64_t numbers) {
  STD_TORCH_CHECK(t.scalar_type() == x.scalar_type() && t.numel() == numbers, "modulated_lrelu: a part does not fit x");
  return torch::stable::contiguous(t);
}

template <class T>
Tensor run(const Tensor& x_in, const Tensor& scale_in, const Tensor& b_in, const Optional& noise_in,
           const Optional& next_in, double alpha, double gain, double clamp) {
  const int64_t n = x_in.size(0), channels = x_in.size(1), pixels = x_in.size(2) * x_in.size(3);
  const bool channels_last = only_channels_last(x_in);
  const Tensor x = channels_last ? x_in : torch::stable::contiguous(x_in), y = torch::stable::empty_like(x);
  if (y.numel() == 0) return y;
  prefer_huge_pages(y);
  const Tensor scale = dense(scale_in, x, n * channels), b = dense(b_in, x, channels);
  const bool own_noise = noise_in && noise_in->dim() == 4;
  const Optional noise = noise_in ? Optional(dense(*noise_in, x, own_noise ? n * pixels : pixels)) : noise_in;
  const Optional next = next_in ? Optional(dense(*next_in, x, n * channels)) : next_in;
  ModulatedLrelu<T> p{};
  p.x = x.const_data_ptr<T>(), p.y = y.mutable_data_ptr<T>();
  p.scale = scale.const_data_ptr<T>(), p.bias = b.const_data_ptr<T>();
  p.next = next ? next->const_data_ptr<T>() : nullptr, p.noise = noise ? noise->const_data_ptr<T>() : nullptr;
  p.channels = channels, p.pixels = pixels, p.noise_step = own_noise ? pixels : 0, p.channels_last = channels_last;
  p.alpha = static_cast<T>(alpha), p.gain = static_cast<T>(gain);
  p.clamp = clamp < 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(clamp);
  const int64_t unit = channels_last ? channels : pixels, units = y.numel() / unit;
  const ModulatedLreluKernels& kernels = modulated_lrelu_kernels();
  torch::stable::parallel_for(0, units, std::max<int64_t>(1, grain / unit), [&](int64_t begin, int64_t end) {
    if constexpr (sizeof(T) == 4)
      kernels.run_float(p, begin, end);
    else
      kernels.run_double(p, begin, end);
  });
  return y;
}

Tensor modulated_lrelu(const Tensor& x, const Tensor& scale, const Tensor& b, const Optional& noise,
                       const Optional& next, double alpha, double gain, double clamp) {
  STD_TORCH_CHECK(x.dim() == 4, "modulated_lrelu: x must have rank 4, got ", x.dim());
  if (x.scalar_type() == ScalarType::Float) return run<float>(x, scale, b, noise, next, alpha, gain, clamp);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Double, "modulated_lrelu on the CPU: float32 and float64 only");
  return run<double>(x, scale, b, noise, next, alpha, gain, clamp);
}

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) { m.impl("modulated_lrelu", TORCH_BOX(&modulated_lrelu)); }

}  // namespace
}  // namespace eg3d

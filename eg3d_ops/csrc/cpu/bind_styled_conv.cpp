// styled_conv3x3 for tensors on the CPU. styled_conv.py defines the schema.
#include <stdlib.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>

#include "../layout.h"
#include "huge_pages.h"
#include "styled_conv.h"

namespace eg3d {
namespace {

using Optional = std::optional<Tensor>;

constexpr int64_t fewest_tiles = 24;  // computed together; with fewer, reading u takes longer than multiplying

Tensor floats(const Tensor& t, int64_t numbers) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == numbers, "styled_conv3x3: parts must fit x");
  return torch::stable::contiguous(t);
}

std::unique_ptr<float, decltype(&free)> working_memory(int64_t count) {
  float* const memory = static_cast<float*>(aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
  STD_TORCH_CHECK(memory, "styled_conv3x3: no memory for ", count, " numbers");
  return {memory, &free};
}

Tensor styled_conv3x3(const Tensor& x, const Tensor& u_in, const Tensor& scale_in, const Tensor& b_in,
                      const Optional& noise_in, const Optional& next_in, double alpha, double gain, double clamp) {
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float && u_in.dim() == 4,
                  "styled_conv3x3: x must be float32 [N, C, H, W], u [panels, 16, C, 64]");
  const int64_t n = x.size(0), in = x.size(1), height = x.size(2), width = x.size(3), out = b_in.size(0);
  STD_TORCH_CHECK(in % 16 == 0 && out % 16 == 0 && (n * height * width <= 1 || only_channels_last(x)),
                  "styled_conv3x3: needs channels innermost, multiples of 16");
  const int64_t panels = (out + kPanel - 1) / kPanel;
  const Tensor u = floats(u_in, panels * kPositions * in * kPanel);
  const Tensor y = torch::stable::empty({n, out, height, width}, x.scalar_type(), std::nullopt, x.device(),
                                        std::nullopt, torch::headeronly::MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  prefer_huge_pages(y);
  const bool own_noise = noise_in && noise_in->dim() == 4;
  const Tensor scale = floats(scale_in, n * out), b = floats(b_in, out);
  const Optional noise = noise_in ? Optional(floats(*noise_in, (own_noise ? n : 1) * height * width)) : noise_in;
  const Optional next = next_in ? Optional(floats(*next_in, n * out)) : next_in;
  StyledConv p{};
  p.x = x.const_data_ptr<float>(), p.y = y.mutable_data_ptr<float>(), p.u = u.const_data_ptr<float>();
  p.images = n, p.height = height, p.width = width, p.channels_in = in, p.channels_out = out;
  p.scale = scale.const_data_ptr<float>(), p.bias = b.const_data_ptr<float>();
  p.next = next ? next->const_data_ptr<float>() : nullptr;
  p.noise = noise ? noise->const_data_ptr<float>() : nullptr;
  p.noise_step = own_noise ? height * width : 0;
  p.alpha = static_cast<float>(alpha), p.gain = static_cast<float>(gain);
  p.clamp = clamp < 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(clamp);
  const int64_t tiles = n * ((height + 1) / 2) * ((width + 1) / 2), threads = torch::stable::get_num_threads();
  p.tiles = std::clamp<int64_t>((tiles + threads - 1) / threads, std::min(fewest_tiles, tiles), kMostTiles);
  const StyledConvKernels& kernels = styled_conv_kernels();
  torch::stable::parallel_for(0, tiles, p.tiles, [&](int64_t begin, int64_t end) {
    kernels.run(p, working_memory(styled_conv_scratch(p)).get(), begin, end);
  });
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) { m.impl("styled_conv3x3", TORCH_BOX(&styled_conv3x3)); }

}  // namespace
}  // namespace eg3d

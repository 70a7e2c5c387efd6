// upfirdn2d for tensors on a GPU. upfirdn2d.py defines the schema.
#include <torch/csrc/stable/library.h>

#include "cuda/stream.h"
#include "tensors.h"
#include "upfirdn2d.h"

namespace eg3d {
namespace {

struct Sizes {
  std::vector<int64_t> up, down, padding;  // [x, y], [x, y], [x0, x1, y0, y1]
};

int checked_int(int64_t value, const char* what) {
  STD_TORCH_CHECK(value >= -(1LL << 30) && value < (1LL << 30), "upfirdn2d (CUDA): ", what, " must be below 2^30, got ",
                  value);
  return static_cast<int>(value);
}

// Returns the resampling along x (`side` 0) or y (`side` 1). An axis that the filter does not touch stays unchanged.
ResampleAxis axis(const Sizes& s, int side, int64_t in, int64_t taps, bool touched) {
  if (!touched) return {checked_int(in, "size"), static_cast<int>(in), 1, 1, 0, 1};
  const int64_t up = s.up[side], down = s.down[side], before = s.padding[2 * side], after = s.padding[2 * side + 1];
  STD_TORCH_CHECK(up > 0 && down > 0, "upfirdn2d (CUDA): up and down must be positive");
  const int64_t covered = in * up + before + after - taps;
  STD_TORCH_CHECK(covered >= 0, "upfirdn2d (CUDA): the padded image is smaller than the filter");
  const int64_t out = covered / down + 1;
  return {checked_int(in, "size"),   checked_int(out, "size"),       checked_int(up, "up"),
          checked_int(down, "down"), checked_int(before, "padding"), checked_int(taps, "taps")};
}

Tensor empty_image(const Tensor& like, int64_t height, int64_t width, bool channels_last) {
  using torch::headeronly::MemoryFormat;
  const std::vector<int64_t> sizes{like.size(0), like.size(1), height, width};
  return torch::stable::empty(sizes, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// Runs one launch, with a filter [fh, fw] or with a row of taps along x or along y.
Tensor pass(const Tensor& x, const Tensor& f, const Sizes& s, bool along_x, bool along_y, bool channels_last, bool flip,
            double gain) {
  const int64_t last = f.size(f.dim() - 1);
  Upfirdn2d p{};
  p.x = axis(s, 0, x.size(3), last, along_x);
  p.y = axis(s, 1, x.size(2), f.dim() == 2 ? f.size(0) : last, along_y);
  p.images = checked_int(channels_last ? x.size(0) : x.size(0) * x.size(1), "images");
  p.inner = channels_last ? checked_int(x.size(1), "channels") : 1;
  p.flip = flip, p.gain = gain;
  const Tensor y = empty_image(x, p.y.out, p.x.out, channels_last);
  if (y.numel() == 0) return y;
  const OnDeviceOf device(x);
  launch_upfirdn2d(element_type("upfirdn2d", x), p, x.const_data_ptr(), f.const_data_ptr<float>(), y.mutable_data_ptr(),
                   device.stream);
  return y;
}

Tensor upfirdn2d(const Tensor& x_in, const Tensor& f_in, std::vector<int64_t> up, std::vector<int64_t> down,
                 std::vector<int64_t> padding, bool flip_filter, double gain) {
  STD_TORCH_CHECK(x_in.dim() == 4, "upfirdn2d (CUDA): x must have rank 4, got ", x_in.dim());
  STD_TORCH_CHECK(f_in.scalar_type() == ScalarType::Float && (f_in.dim() == 1 || f_in.dim() == 2) && f_in.numel() > 0,
                  "upfirdn2d (CUDA): f must be float32 [taps] or [fh, fw]");
  STD_TORCH_CHECK(up.size() == 2 && down.size() == 2 && padding.size() == 4,
                  "upfirdn2d (CUDA): up and down take [x, y], padding [x0, x1, y0, y1]");
  check_same_device("upfirdn2d", x_in, f_in);
  const bool channels_last = only_channels_last(x_in);
  const Tensor x = channels_last ? x_in : torch::stable::contiguous(x_in), f = torch::stable::contiguous(f_in);
  const Sizes sizes{std::move(up), std::move(down), std::move(padding)};
  if (f.dim() == 2) return pass(x, f, sizes, true, true, channels_last, flip_filter, gain);
  const Tensor half = pass(x, f, sizes, true, false, channels_last, flip_filter, gain);
  return pass(half, f, sizes, false, true, channels_last, flip_filter, 1);
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CUDA, m) { m.impl("upfirdn2d", TORCH_BOX(&eg3d::upfirdn2d)); }

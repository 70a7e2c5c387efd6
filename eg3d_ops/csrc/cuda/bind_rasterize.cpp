// rasterize for tensors on a GPU. rasterize.py defines the schema.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "cuda/stream.h"
#include "rasterize.h"
#include "tensors.h"

namespace eg3d {
namespace {

Tensor rasterize(const Tensor& points_in, const Tensor& faces_in, int64_t height, int64_t width) {
  STD_TORCH_CHECK(points_in.dim() == 3 && points_in.size(2) == 3 && points_in.scalar_type() == ScalarType::Float,
                  "rasterize (CUDA): points must be float32 [N, V, 3]");
  STD_TORCH_CHECK(faces_in.dim() == 2 && faces_in.size(1) == 3 && faces_in.scalar_type() == ScalarType::Int,
                  "rasterize (CUDA): faces must be int32 [F, 3]");
  STD_TORCH_CHECK(height > 0 && width > 0, "rasterize (CUDA): height and width must be positive");
  check_same_device("rasterize", points_in, faces_in);
  const Tensor points = torch::stable::contiguous(points_in), faces = torch::stable::contiguous(faces_in);
  const Rasterize args{points.size(0), points.size(1), faces.size(0), height, width};
  const OnDeviceOf device(points);
  const std::vector<int64_t> sizes{args.images, height, width};
  const Tensor ids = torch::stable::empty(sizes, ScalarType::Int, std::nullopt, points.device());
  const Tensor keys = torch::stable::empty(sizes, ScalarType::Long, std::nullopt, points.device());
  launch_rasterize(args, points.const_data_ptr<float>(), faces.const_data_ptr<int32_t>(),
                   reinterpret_cast<unsigned long long*>(keys.mutable_data_ptr<int64_t>()),
                   ids.mutable_data_ptr<int32_t>(), device.stream);
  return ids;
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CUDA, m) { m.impl("rasterize", TORCH_BOX(&eg3d::rasterize)); }

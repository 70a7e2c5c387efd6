// rasterize for tensors on the CPU. rasterize.py defines the schema.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "../layout.h"
#include "rasterize.h"

namespace eg3d {
namespace {

Tensor rasterize(const Tensor& points_in, const Tensor& faces_in, int64_t height, int64_t width) {
  STD_TORCH_CHECK(points_in.dim() == 3 && points_in.size(2) == 3 && points_in.scalar_type() == ScalarType::Float,
                  "rasterize: points must be float32 [N, V, 3]");
  STD_TORCH_CHECK(faces_in.dim() == 2 && faces_in.size(1) == 3 && faces_in.scalar_type() == ScalarType::Int,
                  "rasterize: faces must be int32 [F, 3]");
  STD_TORCH_CHECK(height > 0 && width > 0, "rasterize: height and width must be positive");
  const Tensor points = torch::stable::contiguous(points_in), faces = torch::stable::contiguous(faces_in);
  const int64_t images = points.size(0);
  const std::vector<int64_t> sizes{images, height, width};
  const Tensor ids = torch::stable::empty(sizes, ScalarType::Int, std::nullopt, points.device());
  RasterizeArgs args{};
  args.points = points.const_data_ptr<float>();
  args.faces = faces.const_data_ptr<int32_t>();
  args.vertices = points.size(1), args.num_faces = faces.size(0);
  args.height = height, args.width = width;
  args.ids = ids.mutable_data_ptr<int32_t>();
  torch::stable::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> depth(height * width);
    std::vector<Corner> corners(args.vertices);
    rasterize_kernels().run(args, {depth.data(), corners.data()}, begin, end);
  });
  return ids;
}

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) { m.impl("rasterize", TORCH_BOX(&rasterize)); }

}  // namespace
}  // namespace eg3d

// The renderer for tensors on a GPU. render_rays.py defines the schemas.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/stream.h"
#include "render.h"
#include "tensors.h"

namespace eg3d {
namespace {

Tensor checked(const Tensor& t, const char* name, const Tensor& planes) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "render_rays (CUDA): ", name, " must be float32");
  check_same_device("render_rays", t, planes);
  return torch::stable::contiguous(t);
}

const float* floats(const Tensor& t) { return t.const_data_ptr<float>(); }
float* mutable_floats(const Tensor& t) { return t.mutable_data_ptr<float>(); }

Tensor like(const Tensor& t, const std::vector<int64_t>& sizes) { return torch::stable::new_empty(t, sizes); }
Tensor zeros_like(const Tensor& t, const std::vector<int64_t>& sizes) { return torch::stable::new_zeros(t, sizes); }

std::vector<int64_t> packed_sizes(const PlaneSizes& s) {
  return {s.batch, s.planes, s.height, s.width, texel_size(s.channels)};
}

// Returns whether planes are already packed. Kernels read four channels at once, so the data must be aligned.
bool is_packed(const Tensor& planes, const PlaneSizes& s) {
  const int64_t row = (int64_t)s.width * s.channels, plane = s.height * row;
  const bool aligned = reinterpret_cast<uintptr_t>(planes.const_data_ptr()) % 16 == 0;
  return aligned && s.channels % 4 == 0 && planes.stride(2) == 1 && planes.stride(4) == s.channels &&
         planes.stride(3) == row && planes.stride(1) == plane && (s.batch == 1 || planes.stride(0) == s.planes * plane);
}

Tensor pack(const Tensor& planes, const PlaneSizes& size, void* stream) {
  if (is_packed(planes, size)) return planes;
  const Tensor packed = like(planes, packed_sizes(size));
  long long strides[5];
  for (int i = 0; i < 5; ++i) strides[i] = planes.stride(i);
  launch_pack_planes(element_type("render_rays", planes), size, strides, planes.const_data_ptr(),
                     packed.mutable_data_ptr(), stream);
  return packed;
}

// A scene and the tensors that it points into.
struct Inputs {
  Tensor origins, directions, w1, b1, w2, b2;
  Scene scene{};

  Inputs(const Tensor& planes, const Tensor& origins_in, const Tensor& directions_in, const Tensor& w1_in,
         const Tensor& b1_in, const Tensor& w2_in, const Tensor& b2_in, const std::vector<int64_t>& axes,
         double box_warp)
      : origins(checked(origins_in, "origins", planes)),
        directions(checked(directions_in, "directions", planes)),
        w1(checked(w1_in, "w1", planes)),
        b1(checked(b1_in, "b1", planes)),
        w2(checked(w2_in, "w2", planes)),
        b2(checked(b2_in, "b2", planes)) {
    STD_TORCH_CHECK(planes.size(1) <= kMaxPlanes && (int64_t)axes.size() == 2 * planes.size(1),
                    "render_rays (CUDA): needs two axes for each plane, and at most ", kMaxPlanes, " planes");
    const auto size = [&](int dim) { return static_cast<int>(planes.size(dim)); };
    scene.size = {size(0), size(1), size(2), size(3), size(4)};
    for (size_t i = 0; i < axes.size(); ++i) scene.axes[i] = (int)axes[i];
    scene.scale = (float)(2 / box_warp);
    scene.rays_per_item = origins.size(1), scene.rays = origins.size(0) * origins.size(1);
    scene.origins = floats(origins), scene.directions = floats(directions);
    scene.hidden = (int)w1.size(0), scene.colors = (int)w2.size(0) - 1;
    scene.w1 = floats(w1), scene.b1 = floats(b1), scene.w2 = floats(w2), scene.b2 = floats(b2);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays(
    const Tensor& planes, const Tensor& origins, const Tensor& directions, const Tensor& near_in, const Tensor& far_in,
    const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, std::optional<Tensor> coarse_draws,
    std::optional<Tensor> fine_draws, std::vector<int64_t> axes, double box_warp, int64_t num_coarse, int64_t num_fine,
    bool disparity) {
  const OnDeviceOf device(planes);
  const Inputs inputs(planes, origins, directions, w1, b1, w2, b2, axes, box_warp);
  const Tensor near = checked(near_in, "near", planes), far = checked(far_in, "far", planes);
  if (coarse_draws) coarse_draws = checked(*coarse_draws, "coarse_draws", planes);
  if (fine_draws) fine_draws = checked(*fine_draws, "fine_draws", planes);
  const int64_t n = inputs.origins.size(0), r = inputs.origins.size(1);
  const Tensor color = like(near, {n, r, inputs.scene.colors}), depth = like(near, {n, r}), weight = like(near, {n, r});
  const Tensor depths = like(near, {n, r, num_coarse + num_fine});
  if (n * r == 0) return {color, depth, weight, depths};

  RenderForward p{};
  p.scene = inputs.scene;
  p.near = floats(near), p.far = floats(far);
  p.coarse_draws = coarse_draws ? floats(*coarse_draws) : nullptr;
  p.fine_draws = fine_draws ? floats(*fine_draws) : nullptr;
  p.coarse = (int)num_coarse, p.fine = (int)num_fine, p.disparity = disparity;
  p.color = mutable_floats(color), p.depth = mutable_floats(depth);
  p.weight = mutable_floats(weight), p.depths = mutable_floats(depths);
  const Tensor packed = pack(planes, p.scene.size, device.stream);
  launch_render_forward(element_type("render_rays", planes), p, packed.const_data_ptr(), device.stream);
  return {color, depth, weight, depths};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> render_rays_backward(
    const Tensor& d_color_in, const Tensor& d_depth_in, const Tensor& d_weight_in, const Tensor& planes,
    const Tensor& origins, const Tensor& directions, const Tensor& w1, const Tensor& b1, const Tensor& w2,
    const Tensor& b2, const Tensor& depths_in, std::vector<int64_t> axes, double box_warp) {
  const OnDeviceOf device(planes);
  const Inputs inputs(planes, origins, directions, w1, b1, w2, b2, axes, box_warp);
  const Tensor d_color = checked(d_color_in, "d_color", planes), d_depth = checked(d_depth_in, "d_depth", planes);
  const Tensor d_weight = checked(d_weight_in, "d_weight", planes), depths = checked(depths_in, "depths", planes);
  const Tensor d_w1 = zeros_like(inputs.w1, {w1.size(0), w1.size(1)}), d_b1 = zeros_like(inputs.b1, {b1.size(0)});
  const Tensor d_w2 = zeros_like(inputs.w2, {w2.size(0), w2.size(1)}), d_b2 = zeros_like(inputs.b2, {b2.size(0)});
  const PlaneSizes& size = inputs.scene.size;
  const std::vector<int64_t> plane_sizes{size.batch, size.planes, size.channels, size.height, size.width};
  if (inputs.scene.rays == 0) return {zeros_like(depths, plane_sizes), d_w1, d_b1, d_w2, d_b2};

  const ElementType type = element_type("render_rays", planes);
  const Tensor packed = pack(planes, size, device.stream), d_packed = zeros_like(depths, packed_sizes(size));
  RenderBackward p{};
  p.scene = inputs.scene, p.samples = (int)depths.size(2);
  p.d_color = floats(d_color), p.d_depth = floats(d_depth), p.d_weight = floats(d_weight), p.depths = floats(depths);
  const int blocks = render_backward_blocks(type, p);
  const Tensor partials = like(depths, {blocks, decoder_parameters(p.scene)});
  p.d_planes = mutable_floats(d_packed), p.partials = mutable_floats(partials);
  launch_render_backward(type, p, blocks, packed.const_data_ptr(), device.stream);
  launch_sum_partials(p.scene, blocks, p.partials, mutable_floats(d_w1), mutable_floats(d_b1), mutable_floats(d_w2),
                      mutable_floats(d_b2), device.stream);
  const Tensor d_planes = like(depths, plane_sizes);
  launch_unpack_planes(size, p.d_planes, mutable_floats(d_planes), device.stream);
  return {d_planes, d_w1, d_b1, d_w2, d_b2};
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CUDA, m) {
  m.impl("render_rays", TORCH_BOX(&eg3d::render_rays));
  m.impl("render_rays_backward", TORCH_BOX(&eg3d::render_rays_backward));
}

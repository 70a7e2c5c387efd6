// Launchers of the renderer.
#include "launch.h"
#include "planes_kernel.cuh"
#include "render_backward_kernel.cuh"
#include "render_forward_kernel.cuh"

namespace eg3d {
namespace {

void check_limit(const char* what, long long size, long long most) {
  if (size > most)
    fail("render_rays takes at most " + std::to_string(most) + " " + what + ", got " + std::to_string(size) +
         "; use impl='reference'");
}

void check_planes(const PlaneSizes& size) {
  check_limit("channels", size.channels, kMaxChannels);
  check_limit("planes", size.planes, kMaxPlanes);
  check_limit("numbers in a plane", (long long)size.height * size.width * texel_size(size.channels), 0x7fffffff);
  check_limit("planes in the batch", (long long)size.batch * size.planes, 65535);  // largest height of a grid
}

void check_scene(const Scene& s, int samples) {
  check_planes(s.size);
  check_limit("hidden units", s.hidden, kMaxHidden);
  check_limit("colours", s.colors, kMaxColors);
  check_limit("samples per ray", samples, kMaxSamples);
  if (samples < 2) fail("render_rays takes at least 2 samples per ray, got " + std::to_string(samples));
}

// Calls `run` with a zero of the planes' element type, which has at most 32 bits.
template <class Run>
void with_plane_element(ElementType type, const Run& run) {
  with_element(type, [&](auto zero) {
    if constexpr (sizeof(zero) <= sizeof(float))
      run(zero);
    else
      fail("render_rays takes planes of float32, float16 or bfloat16, not float64");
  });
}

dim3 pack_blocks(const PlaneSizes& size) {
  return dim3((unsigned)(((long long)size.height * size.width + 31) / 32), (unsigned)(size.batch * size.planes));
}

size_t backward_bytes(const RenderBackward& p) { return sizeof(float) * backward_floats(p.scene.hidden, p.samples); }

}  // namespace

void launch_pack_planes(ElementType type, const PlaneSizes& size, const long long (&strides)[5], const void* planes,
                        void* packed, void* stream) {
  check_planes(size);
  PlaneStrides stride;
  for (int i = 0; i < 5; ++i) stride.at[i] = strides[i];
  with_plane_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("pack_planes_kernel", pack_planes_kernel<T>, pack_blocks(size), dim3(32, kPackRows), kPackShared, stream,
           size, stride, (const T*)planes, (T*)packed);
  });
}

void launch_unpack_planes(const PlaneSizes& size, const float* packed, float* planes, void* stream) {
  check_planes(size);
  launch("unpack_planes_kernel", unpack_planes_kernel, pack_blocks(size), dim3(32, kPackRows), kPackShared, stream,
         size, packed, planes);
}

void launch_render_forward(ElementType type, const RenderForward& p, const void* packed_planes, void* stream) {
  check_scene(p.scene, p.coarse + p.fine);
  const size_t decoder = sizeof(float) * decoder_floats(p.scene.hidden);
  const size_t warp = sizeof(float) * forward_floats(p.coarse + p.fine);
  const size_t most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  int warps = kForwardWarps;
  while (warps > 1 && decoder + warps * warp > most) warps /= 2;
  const size_t shared = decoder + warps * warp;
  with_plane_element(type, [&](auto zero) {
    using T = decltype(zero);
    allow_shared("render_forward_kernel", render_forward_kernel<T>, shared);
    const int resident = resident_blocks("render_forward_kernel", render_forward_kernel<T>, 32 * warps, shared);
    const long long useful = (p.scene.rays + warps - 1) / warps;
    launch("render_forward_kernel", render_forward_kernel<T>, dim3((unsigned)(useful < resident ? useful : resident)),
           dim3(32 * warps), shared, stream, p, (const T*)packed_planes);
  });
}

int render_backward_blocks(ElementType type, const RenderBackward& p) {
  check_scene(p.scene, p.samples);
  const size_t shared = backward_bytes(p);
  int resident = 0;
  with_plane_element(type, [&](auto zero) {
    using T = decltype(zero);
    allow_shared("render_backward_kernel", render_backward_kernel<T>, shared);
    resident = resident_blocks("render_backward_kernel", render_backward_kernel<T>, 32 * kBackwardWarps, shared);
  });
  const long long useful = (p.scene.rays + kBackwardWarps - 1) / kBackwardWarps;
  return (int)(useful < resident ? useful : resident);
}

void launch_render_backward(ElementType type, const RenderBackward& p, int blocks, const void* packed_planes,
                            void* stream) {
  with_plane_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("render_backward_kernel", render_backward_kernel<T>, dim3((unsigned)blocks), dim3(32 * kBackwardWarps),
           backward_bytes(p), stream, p, (const T*)packed_planes);
  });
}

void launch_sum_partials(const Scene& s, int blocks, const float* partials, float* d_w1, float* d_b1, float* d_w2,
                         float* d_b2, void* stream) {
  const unsigned grid = (unsigned)((decoder_parameters(s) + 255) / 256);
  launch("sum_partials_kernel", sum_partials_kernel, dim3(grid), dim3(256), 0, stream, s, blocks, partials, d_w1, d_b1,
         d_w2, d_b2);
}

}  // namespace eg3d

// What the renderer's kernels are told, what they can take, and their launchers.
#pragma once

#include "common.h"

namespace eg3d {

// Lanes of a warp are channels or colours, registers and shared memory hold the rest: with these limits a block
// of the backward kernel fits the 96 KB of shared memory of a V100. render_rays.py checks them first.
constexpr int kMaxChannels = 32, kMaxHidden = 64, kMaxColors = 32, kMaxSamples = 256, kMaxPlanes = 8;

struct PlaneSizes {
  int batch, planes, channels, height, width;
};

// Packed planes lie [N, P, H, W, texel]: a texel's channels, rounded up to a multiple of 4, side by side.
EG3D_BOTH inline constexpr int texel_size(int channels) { return (channels + 3) / 4 * 4; }

struct Scene {
  PlaneSizes size;
  int axes[2 * kMaxPlanes];           // per plane: the world axis along its width, the one along its height
  float scale;                        // 2 / box_warp
  long long rays, rays_per_item;      // N * R, R
  const float *origins, *directions;  // [N, R, 3]
  int hidden, colors;
  const float *w1, *b1, *w2, *b2;  // [Hd, C], [Hd], [1+Co, Hd], [1+Co]: output 0 is density
};

struct RenderForward {
  Scene scene;
  const float *near, *far;                 // [N, R]
  const float *coarse_draws, *fine_draws;  // [N, R, coarse], [N, R, fine]; null: midpoint
  int coarse, fine;                        // samples per ray
  bool disparity;
  float *color, *depth, *weight, *depths;  // [N, R, Co], [N, R], [N, R], [N, R, coarse + fine]
};

struct RenderBackward {
  Scene scene;
  int samples;
  const float *d_color, *d_depth, *d_weight, *depths;  // as the outputs of the forward pass
  float* d_planes;                                     // packed, float32, zeros
  float* partials;                                     // [blocks, decoder_parameters]: each block's share
};

EG3D_BOTH inline long long decoder_parameters(const Scene& s) {
  return (long long)s.hidden * (s.size.channels + 1) + (1LL + s.colors) * (s.hidden + 1);
}

// `strides` of planes [N, P, C, H, W], in elements.
void launch_pack_planes(ElementType, const PlaneSizes&, const long long (&strides)[5], const void* planes, void* packed,
                        void* stream);
// packed float32 -> [N, P, C, H, W]
void launch_unpack_planes(const PlaneSizes&, const float* packed, float* planes, void* stream);
void launch_render_forward(ElementType, const RenderForward&, const void* packed_planes, void* stream);
int render_backward_blocks(ElementType, const RenderBackward&);
void launch_render_backward(ElementType, const RenderBackward&, int blocks, const void* packed_planes, void* stream);
// Adds the blocks' shares up, always in the same order.
void launch_sum_partials(const Scene&, int blocks, const float* partials, float* d_w1, float* d_b1, float* d_w2,
                         float* d_b2, void* stream);

}  // namespace eg3d

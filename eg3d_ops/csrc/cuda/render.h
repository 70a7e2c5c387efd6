// Arguments of the renderer's kernels, their limits, and their launchers.
#pragma once

#include "common.h"

namespace eg3d {

// The lanes of a warp are channels or colours; registers and shared memory hold the rest. With these limits a block of
// the backward kernel fits the 96 KB of shared memory of a V100. render_rays.py checks them first.
constexpr int kMaxChannels = 32, kMaxHidden = 64, kMaxColors = 32, kMaxSamples = 256, kMaxPlanes = 8;

struct PlaneSizes {
  int batch, planes, channels, height, width;
};

// Packed planes are [N, P, H, W, texel]. A texel holds its channels next to each other, padded to a multiple of 4.
EG3D_BOTH inline constexpr int texel_size(int channels) { return (channels + 3) / 4 * 4; }

struct Scene {
  PlaneSizes size;
  int axes[2 * kMaxPlanes];           // per plane: the world axes along its width and its height
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
  const float *d_color, *d_depth, *d_weight, *depths;  // shaped as the outputs of the forward pass
  float* d_planes;                                     // packed, float32, zero at the start
  float* partials;                                     // [blocks, decoder_parameters]: gradients of each block
};

EG3D_BOTH inline long long decoder_parameters(const Scene& s) {
  return (long long)s.hidden * (s.size.channels + 1) + (1LL + s.colors) * (s.hidden + 1);
}

// Packs planes [N, P, C, H, W]; `strides` are theirs, in elements.
void launch_pack_planes(ElementType, const PlaneSizes&, const long long (&strides)[5], const void* planes, void* packed,
                        void* stream);
// Converts packed float32 planes to [N, P, C, H, W].
void launch_unpack_planes(const PlaneSizes&, const float* packed, float* planes, void* stream);
void launch_render_forward(ElementType, const RenderForward&, const void* packed_planes, void* stream);
int render_backward_blocks(ElementType, const RenderBackward&);
void launch_render_backward(ElementType, const RenderBackward&, int blocks, const void* packed_planes, void* stream);
// Sums the decoder gradients of all blocks, always in the same order.
void launch_sum_partials(const Scene&, int blocks, const float* partials, float* d_w1, float* d_b1, float* d_w2,
                         float* d_b2, void* stream);

}  // namespace eg3d

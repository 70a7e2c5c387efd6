// A 3x3 convolution of stride 1 by Winograd's F(2x2, 3x3), with what follows a modulated convolution.
//
// The 2 x 2 outputs of a tile depend on 4 x 4 inputs d. With the matrices of Lavin and Gray (2016),
//   y = At [(G w Gt) * (Bt d B)] A,
// where * multiplies element by element and is summed over the input channels. So there are 16 matrix products for
// 16 positions in the transformed tile, 4 multiplications per output and channel instead of 9.
#pragma once

#include "dispatch.h"

namespace eg3d {

constexpr int kPositions = 16;  // in a transformed tile
constexpr int kPanel = 64;      // output channels computed together
constexpr int kMostTiles = 96;  // computed together
constexpr int kStagger = 16;    // floats between positions, so that they do not share the sets of a cache

// Images are [N, height, width, channels] in memory. Null: the tensor is absent.
struct StyledConv {
  const float* x;
  float* y;
  const float* u;  // [panels, 16, channels_in, 64]: G w Gt
  int64_t images, height, width, channels_in, channels_out;
  int64_t tiles;              // computed together, at most kMostTiles
  const float *scale, *next;  // [N, channels_out]
  const float* bias;          // [channels_out]
  const float* noise;         // [height, width], or [N, height, width] if noise_step is height * width
  int64_t noise_step;
  float alpha, gain;
  float clamp;  // NaN means no clamp, because no comparison with NaN is true
};

// Floats of working memory for a range of tiles.
inline int64_t styled_conv_scratch(const StyledConv& p) {
  return kPositions * (p.tiles * (p.channels_in + kPanel) + 2 * kStagger) + p.channels_in;
}

// Computes tiles [begin, end), counted row by row through all images. `scratch` is aligned to 64 bytes.
struct StyledConvKernels {
  void (*run)(const StyledConv&, float* scratch, int64_t begin, int64_t end);
};

EG3D_DECLARE_KERNELS(StyledConvKernels, styled_conv)

}  // namespace eg3d

// Arguments of the fused tri-plane renderer's CPU kernels.
//
// Rays are processed in tiles. A tile is a few rays of one batch element whose samples together fill the small matrix
// products of the decoder. Features, hidden units and outputs are padded to whole vectors (multiples of `kPad` floats)
// with zero weights, so that no inner loop has a remainder.
#pragma once

#include "dispatch.h"

namespace eg3d {

constexpr int kPad = 16;
constexpr int kMaxPlanes = 8;
constexpr int kRowsPerTile = 96;  // intended samples per tile: one ray of the official 48 + 48 samples
inline int padded(int n) { return (n + kPad - 1) / kPad * kPad; }

struct RenderSizes {
  int64_t batch, rays;                 // N, R
  int planes, height, width;           // P, H, W
  int channels, hidden, colors;        // C, Hd, Co
  int channels_p, hidden_p, colors_p;  // the same, padded
  int samples;                         // K: all samples of a ray
  int rays_per_tile;
  int side;  // the rays form a square image of this side, processed in 8 x 8 blocks; 0: they are a list

  // Returns the i-th ray in processing order. Blocks are used because neighbours in both directions read the same
  // texels.
  int64_t ray_at(int64_t i) const {
    if (side == 0) return i;
    const int64_t block = i / 64, within = i % 64, row = block / (side / 8), column = block % (side / 8);
    return (row * 8 + within / 8) * side + column * 8 + within % 8;
  }
  int64_t tiles_per_image() const { return (rays + rays_per_tile - 1) / rays_per_tile; }
  int64_t tiles() const { return batch * tiles_per_image(); }
  int rows_per_tile() const { return rays_per_tile * samples; }
  int64_t row_stride() const { return padded(rows_per_tile()) + kPad; }  // room for vectors written past the end
  int64_t ray_stride() const { return padded(samples) + kPad; }
};

// The decoder's weights in the order in which the matrix products read them.
struct PackedDecoder {
  const float* w1_t;        // [C, Hd_p]     layer 1, transposed
  const float* b1;          // [Hd_p]
  const float* w2_density;  // [Hd_p]        row 0 of layer 2
  const float* w2_color_t;  // [Hd_p, Co_p]  the other rows, transposed
  const float* b2_color;    // [Co_p]
  float b2_density;
  const float* w1;        // [Hd_p, C_p]   backward only
  const float* w2_color;  // [Co, Hd_p]    backward only
};

struct RenderScene {
  RenderSizes size;
  const float* planes;      // [N, P, H, W, C_p]
  const float* origins;     // [N, R, 3]
  const float* directions;  // [N, R, 3]
  int axes[2 * kMaxPlanes];
  float scale;  // 2 / box_warp: position -> [-1, 1]
  PackedDecoder decoder;
};

struct RenderForward : RenderScene {
  int coarse, fine;  // S, F
  bool disparity;
  const float *near, *far;                 // [N, R]
  const float *coarse_draws, *fine_draws;  // [N, R, S], [N, R, F]; null: midpoints
  float *color, *depth, *weight, *depths;  // [N, R, Co], [N, R], [N, R], [N, R, K]
};

// The backward pass processes one chunk of tiles at a time, in two passes. First every tile writes its feature
// gradients and bilinear corners to its slot. Then every part of the planes sums the gradients that belong to it. No
// two threads add to the same number, so the result does not depend on the number of threads.
struct RenderBackward : RenderScene {
  const float *d_color, *d_depth, *d_weight;  // [N, R, Co], [N, R], [N, R]
  const float* depths;                        // [N, R, K]
  float* d_planes;                            // [N, P, H, W, C_p]
  int64_t first_tile, chunk_tiles;            // the current chunk: tiles of one image
  int tiles_per_block;                        // a block of tiles shares one decoder gradient
  int* count;                                 // [tiles]: number of samples of a tile that receive a gradient
  int* sample;                                // [tiles, row_stride]: the indices of these samples
  int32_t* offsets;                           // [tiles, 4P, row_stride] corners of all samples
  float* corner_weights;                      // [tiles, 4P, row_stride]
  float* d_features;                          // [tiles, row_stride, C_p] in the order of `sample`
  float* d_decoder;                           // [blocks, decoder_size()]
  int bands;                                  // horizontal bands of a plane, to use more threads

  // Numbers in one decoder gradient:
  // d_w1 [Hd_p, C_p], d_b1 [Hd_p], d_w2_density [Hd_p], d_w2_color_t [Hd_p, Co_p], d_b2_color [Co_p],
  // d_b2_density [kPad]
  int64_t decoder_size() const {
    const int64_t hp = size.hidden_p;
    return hp * size.channels_p + 2 * hp + hp * size.colors_p + size.colors_p + kPad;
  }
};

struct RenderForwardKernels {
  void (*tiles)(const RenderForward&, int64_t begin, int64_t end);
};
struct RenderBackwardKernels {
  void (*blocks)(const RenderBackward&, int64_t begin, int64_t end);   // units: chunk_tiles / tiles_per_block
  void (*scatter)(const RenderBackward&, int64_t begin, int64_t end);  // units: planes * C_p / kPad * bands
};
EG3D_DECLARE_KERNELS(RenderForwardKernels, render_forward)
EG3D_DECLARE_KERNELS(RenderBackwardKernels, render_backward)

}  // namespace eg3d

// styled_conv3x3 for a range of tiles, compiled once per instruction set.
#include "gemm.h"
#include "styled_conv.h"
#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

constexpr int kDepth = 128;  // input channels of one product, so that its part of u stays in a near cache

// The place of a tile: its image, and its first output row and column.
struct Tile {
  int64_t image, row, column;

  static Tile at(const StyledConv& p, int64_t index) {
    const int64_t across = (p.width + 1) / 2, down = (p.height + 1) / 2;
    return {index / (across * down), index / across % down * 2, index % across * 2};
  }
};

// Bt v for four vectors: Bt = (1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1).
EG3D_INLINE void transform_input(vf a, vf b, vf c, vf d, vf (&to)[4]) {
  to[0] = a - c, to[1] = b + c, to[2] = c - b, to[3] = b - d;
}

// At v: At = (1 1 1 0, 0 1 -1 -1).
EG3D_INLINE void transform_output(vf a, vf b, vf c, vf d, vf (&to)[2]) { to[0] = a + b + c, to[1] = b - c - d; }

// Writes Bt d B of one tile to v[position * step]. `zeros` stands for pixels outside the image.
static void scatter_tile(const StyledConv& p, int64_t index, const float* zeros, float* v, int64_t step) {
  const Tile tile = Tile::at(p, index);
  const int64_t channels = p.channels_in;
  const float* pixel[kPositions];
  for (int i = 0; i < kPositions; ++i) {
    const int64_t row = tile.row + i / 4 - 1, column = tile.column + i % 4 - 1;
    const bool inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
    pixel[i] = inside ? p.x + ((tile.image * p.height + row) * p.width + column) * channels : zeros;
  }
  for (int64_t c = 0; c < channels; c += VL) {
    vf rows[4][4];  // [column][transformed row]
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      transform_input(load(pixel[j] + c), load(pixel[4 + j] + c), load(pixel[8 + j] + c), load(pixel[12 + j] + c),
                      rows[j]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      vf both[4];
      transform_input(rows[0][i], rows[1][i], rows[2][i], rows[3][i], both);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store(v + (4 * i + j) * step + c, both[j]);
    }
  }
}

EG3D_INLINE vf activated(const StyledConv& p, vf v) {
  const vf limit = splat(p.clamp), y = (v < 0.f ? v * p.alpha : v) * p.gain;
  const vf below = y > limit ? limit : y;
  return below < -limit ? -limit : below;
}

// Finishes one tile: At m A of its sums at m[position * step], then the activation, for the channels of one panel.
static void gather_tile(const StyledConv& p, int64_t index, int64_t first_channel, const float* m, int64_t step) {
  const Tile tile = Tile::at(p, index);
  const int64_t end = first_channel + kPanel < p.channels_out ? first_channel + kPanel : p.channels_out;
  const float* const scale = p.scale + tile.image * p.channels_out;
  const float* const next = p.next ? p.next + tile.image * p.channels_out : nullptr;
  for (int64_t c = first_channel; c < end; c += VL, m += VL) {
    vf rows[4][2], y[2][2];  // [column][row], [row][column]
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      transform_output(load(m + j * step), load(m + (4 + j) * step), load(m + (8 + j) * step),
                       load(m + (12 + j) * step), rows[j]);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) transform_output(rows[0][i], rows[1][i], rows[2][i], rows[3][i], y[i]);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const int64_t row = tile.row + k / 2, column = tile.column + k % 2;
      if (row >= p.height || column >= p.width) continue;
      const int64_t at = row * p.width + column;
      const float noise = p.noise ? p.noise[tile.image * p.noise_step + at] : 0.f;
      const vf v = activated(p, y[k / 2][k % 2] * load(scale + c) + (load(p.bias + c) + noise));
      float* const out = p.y + (tile.image * p.height * p.width + at) * p.channels_out + c;
      store(out, next ? v * load(next + c) : v);
    }
  }
}

// Computes m[position] = v[position] u[position] for one panel.
static void multiply(const StyledConv& p, const float* v, int64_t v_step, int rows, const float* u, float* m,
                     int64_t m_step) {
  const float* row[kMostTiles];
  for (int k = 0; k < kPositions; ++k, v += v_step, m += m_step) {
    for (int64_t first = 0; first < p.channels_in; first += kDepth) {
      const int depth = p.channels_in - first < kDepth ? p.channels_in - first : kDepth;
      for (int t = 0; t < rows; ++t) row[t] = v + t * p.channels_in + first;
      gemm(rows, kPanel, depth, row, 1, u, kPanel, [&](int t, int column, const auto& sum) {
        float* const to = m + t * kPanel + column;
        for (int j = 0; j < (int)(sizeof(sum) / sizeof(vf)); ++j)
          store(to + j * VL, first ? load(to + j * VL) + sum[j] : sum[j]);
      });
      u += depth * kPanel;
    }
  }
}

static void run(const StyledConv& p, float* scratch, int64_t begin, int64_t end) {
  const int64_t v_step = p.tiles * p.channels_in + kStagger, m_step = p.tiles * kPanel + kStagger;
  float *const v = scratch, *const m = v + kPositions * v_step, *const zeros = m + kPositions * m_step;
  for (int64_t c = 0; c < p.channels_in; ++c) zeros[c] = 0;
  for (; begin < end; begin += p.tiles) {
    const int rows = end - begin < p.tiles ? end - begin : p.tiles;
    for (int t = 0; t < rows; ++t) scatter_tile(p, begin + t, zeros, v + t * p.channels_in, v_step);
    const float* u = p.u;
    for (int64_t channel = 0; channel < p.channels_out; channel += kPanel) {
      multiply(p, v, v_step, rows, u, m, m_step);
      for (int t = 0; t < rows; ++t) gather_tile(p, begin + t, channel, m + t * kPanel, m_step);
      u += kPositions * p.channels_in * kPanel;
    }
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(StyledConvKernels, styled_conv) = {EG3D_ISA::run};

}  // namespace eg3d

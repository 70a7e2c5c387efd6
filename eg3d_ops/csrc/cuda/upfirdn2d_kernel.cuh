// Inserts zeros, pads or crops, filters and decimates, but never stores the image with the zeros.
//
// Along one axis, with k the filter in the order of a correlation, y[o] = sum_i x[i] k[i up + before - o down].
// An output pixel therefore uses only every up-th tap, one per input pixel that the filter covers.
#pragma once

#include "numeric.cuh"
#include "upfirdn2d.h"

namespace eg3d {

// The taps that output pixel `o` uses: `tap`, `tap + up`, ..., on input pixels `pixel`, `pixel + 1`, ...
struct TapWindow {
  int tap, pixel;
};

__device__ inline TapWindow tap_window(int o, int up, int down, int before) {
  const int start = o * down - before;  // position of tap 0 among the upsampled pixels
  int tap = -start % up;
  if (tap < 0) tap += up;
  return {tap, (start + tap) / up};
}

constexpr int kResampleColumns = 32, kResampleRows = 8;  // threads of a block
// The largest number of columns whose index, rounded up to whole blocks, is an int.
constexpr int kMostColumns = 0x7fffffff / kResampleColumns * kResampleColumns;
static_assert((kMostColumns - 1LL + kResampleColumns) / kResampleColumns * kResampleColumns - 1 <= 0x7fffffffLL,
              "the last thread's column is an int");

// Up, Down and Taps are known at compile time and equal along x and y; 0 means that they are in `p`.
template <class T, int Up, int Down, int Taps>
__global__ void __launch_bounds__(kResampleColumns* kResampleRows)
    upfirdn2d_kernel(Upfirdn2d p, typename Compute<T>::type gain, const T* __restrict__ x,
                     const float* __restrict__ filter, T* __restrict__ y) {
  typedef typename Compute<T>::type F;
  const int up_x = Up ? Up : p.x.up, up_y = Up ? Up : p.y.up;
  const int down_x = Down ? Down : p.x.down, down_y = Down ? Down : p.y.down;
  const int taps_x = Taps ? Taps : p.x.taps, taps_y = Taps ? Taps : p.y.taps;
  const int column = blockIdx.x * kResampleColumns + threadIdx.x;  // neighbouring threads use neighbouring memory
  if (column >= p.x.out * p.inner) return;
  const int ox = p.inner == 1 ? column : column / p.inner;
  const int channel = column - ox * p.inner;
  const TapWindow wx = tap_window(ox, up_x, down_x, p.x.before);
  const int most_x = (taps_x + up_x - 1) / up_x, most_y = (taps_y + up_y - 1) / up_y;

  const unsigned rows = (unsigned)p.images * p.y.out;  // the launcher keeps them below 2^31
  for (unsigned row = blockIdx.y * kResampleRows + threadIdx.y; row < rows; row += gridDim.y * kResampleRows) {
    const unsigned image = row / p.y.out;
    const TapWindow wy = tap_window((int)(row - image * p.y.out), up_y, down_y, p.y.before);
    const T* const source = x + (long long)image * p.y.in * p.x.in * p.inner + channel;
    F sum = 0;
#pragma unroll
    for (int j = 0; j < most_y; ++j) {
      const int ky = wy.tap + j * up_y, iy = wy.pixel + j;
      if (ky >= taps_y || iy < 0 || iy >= p.y.in) continue;
      const T* const line = source + (long long)iy * p.x.in * p.inner;
      const float* const weights = filter + (p.flip ? ky : taps_y - 1 - ky) * taps_x;
#pragma unroll
      for (int i = 0; i < most_x; ++i) {
        const int kx = wx.tap + i * up_x, ix = wx.pixel + i;
        if (kx >= taps_x || ix < 0 || ix >= p.x.in) continue;
        sum += widen(line[ix * p.inner]) * F(weights[p.flip ? kx : taps_x - 1 - kx]);
      }
    }
    y[(long long)row * p.x.out * p.inner + column] = narrow<T>(sum * gain);
  }
}

}  // namespace eg3d

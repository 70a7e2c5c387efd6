// Resampling of images row by row: combine input rows, filter the result along x, write one output row.
//
// Along one axis, with k the filter in the order of a correlation,
//   y[o] = sum_i x[i] k[i up + before - o down].
// With o = up j + r and i = down j + m, the tap i up + before - o down = m up + before - r down depends only on
// r and m. So for each of the `up` phases r of the output, y is an ordinary correlation over the `down`
// phases of the input: no zeros are inserted and no computed pixel is discarded.
#pragma once

#include "dispatch.h"

namespace eg3d {

// The `count` values of m that the filter covers for one output phase: `first`, `first + 1`, ... The first is
// multiplied by tap `tap`, the next by tap + up, and so on.
struct OutputPhase {
  int64_t first, count, tap;
};

struct ResampleAxis {
  int64_t in, out, up, down;
  const OutputPhase* phases;  // [up]
};

// The filter is a sum of `terms` products of a column fy and a row fx. A separable filter has one term. Other filters
// have one term per row; its column has only the tap of that row.
template <class T>
struct Upfirdn2dPlan {
  ResampleAxis x, y;
  int64_t pixel;  // numbers per pixel, all treated the same: 1, or the channels if these are innermost
  int64_t terms;
  const T* fy;  // indexed by tap, includes the gain
  const T* fx;  // [terms, x.up, most_taps], indexed by position in the phase
  int64_t most_taps;
  // A line of input is placed `margin` numbers into a buffer of zeros, which is `line` long. If x.down > 1, its pixels
  // are distributed in turn over x.down parts of length `part_in`, which start at number `parts` of the buffer;
  // otherwise `parts` is 0. The correlation for output phase r, position k, starts at number sources[r, k] of the
  // parts.
  int64_t margin, line, parts, part_in;
  const int64_t* sources;  // [x.up, most_taps]
  int64_t steps;           // output numbers in one phase: the values of j times pixel
  int64_t room;            // numbers in one such buffer, with the parts
  int64_t block;           // output rows processed together, at most most_block
};

constexpr int64_t most_block = 8;
constexpr int64_t overhang = 32;  // numbers a vector may read beyond the end

template <class T>
using Upfirdn2dRun = void(const Upfirdn2dPlan<T>&, const T* x, T* y, T* scratch, int64_t begin, int64_t end);

// Computes output rows [begin, end), counted through all planes. `scratch` holds
// block (room + x.up steps) + overhang zeros.
struct Upfirdn2dKernels {
  Upfirdn2dRun<float>* run_float;
  Upfirdn2dRun<double>* run_double;
};

EG3D_DECLARE_KERNELS(Upfirdn2dKernels, upfirdn2d)

}  // namespace eg3d

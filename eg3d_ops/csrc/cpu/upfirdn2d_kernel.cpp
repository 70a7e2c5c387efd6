// upfirdn2d for one range of output rows, compiled once per instruction set.
#include "upfirdn2d.h"
#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

constexpr int batch = 4;  // rows summed at once; the usual filter has 4

// Computes dst = (or +=) sum of weight[k] * row[k] for numbers [0, n).
template <int count, bool add, class T>
static void combine(T* dst, const T* const* row, const T* weight, int64_t n) {
  constexpr int lanes = VectorOf<T>::lanes;
  Vec<T> w[count];
  for (int k = 0; k < count; ++k) w[k] = weight[k] - Vec<T>{};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Vec<T> sum = add ? load(dst + i) : Vec<T>{};
    for (int k = 0; k < count; ++k) sum += load(row[k] + i) * w[k];
    store(dst + i, sum);
  }
  for (; i < n; ++i) {
    T sum = add ? dst[i] : T(0);
    for (int k = 0; k < count; ++k) sum += row[k][i] * weight[k];
    dst[i] = sum;
  }
}

template <bool add, class T>
static void combine_some(T* dst, const T* const* row, const T* weight, int count, int64_t n) {
  switch (count) {
    case 1:
      return combine<1, add>(dst, row, weight, n);
    case 2:
      return combine<2, add>(dst, row, weight, n);
    case 3:
      return combine<3, add>(dst, row, weight, n);
    case 4:
      return combine<4, add>(dst, row, weight, n);
  }
}

// Writes the weighted sum of the input rows under taps [tap_begin, tap_end) for output row `out`. Returns false if
// there is no such row.
template <class T>
static bool combine_rows(const Upfirdn2dPlan<T>& p, const T* image, int64_t out, int64_t tap_begin, int64_t tap_end,
                         T* dst) {
  const OutputPhase& phase = p.y.phases[out % p.y.up];
  const int64_t top = out / p.y.up * p.y.down + phase.first;
  const int64_t length = p.x.in * p.pixel;
  const T* row[batch];
  T weight[batch];
  int found = 0;
  bool any = false;
  for (int64_t k = 0; k < phase.count; ++k) {
    const int64_t tap = phase.tap + k * p.y.up;
    if (tap >= tap_begin && tap < tap_end && top + k >= 0 && top + k < p.y.in) {
      row[found] = image + (top + k) * length;
      weight[found++] = p.fy[tap];
    }
    if (found == batch || (found > 0 && k == phase.count - 1)) {
      any ? combine_some<true>(dst, row, weight, found, length) : combine_some<false>(dst, row, weight, found, length);
      any = true;
      found = 0;
    }
  }
  return any;
}

// Distributes the pixels of a line in turn over `count` parts.
template <class T>
static void split(const T* line, T* parts, int64_t part, int64_t count, int64_t pixels, int64_t pixel) {
  if (pixel == 1 && count == 2) {
    T* odd = parts + part;
    for (int64_t i = 0; i < pixels; ++i) parts[i] = line[2 * i], odd[i] = line[2 * i + 1];
    return;
  }
  for (int64_t c = 0; c < count; ++c)
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t k = 0; k < pixel; ++k) parts[c * part + i * pixel + k] = line[(i * count + c) * pixel + k];
}

// Inverse of `split`: collects `pixels` pixels in total.
template <class T>
static void merge(const T* parts, int64_t part, int64_t count, T* line, int64_t pixels, int64_t pixel) {
  if (pixel == 1 && count == 2) {
    const T* odd = parts + part;
    for (int64_t i = 0; i < pixels / 2; ++i) line[2 * i] = parts[i], line[2 * i + 1] = odd[i];
    if (pixels % 2) line[pixels - 1] = parts[pixels / 2];
    return;
  }
  for (int64_t c = 0; c < count; ++c)
    for (int64_t i = 0; i * count + c < pixels; ++i)
      for (int64_t k = 0; k < pixel; ++k) line[(i * count + c) * pixel + k] = parts[c * part + i * pixel + k];
}

// Computes dst = (or +=) sum of weight[k] * src[source[k] + i] for numbers [0, n). May read up to `overhang` numbers
// beyond the end of src.
template <int count, bool add, class T>
static void correlate(T* dst, const T* src, const int64_t* source, const T* weight, int taps, int64_t n) {
  constexpr int lanes = VectorOf<T>::lanes;
  const int last = count ? count : taps;
  Vec<T> w[count ? count : 1];
  const T* from[count ? count : 1];
  for (int k = 0; k < count; ++k) w[k] = weight[k] - Vec<T>{}, from[k] = src + source[k];
  for (int64_t i = 0; i < n; i += lanes) {
    Vec<T> sum{};
    for (int k = 0; k < last; ++k) sum += count ? load(from[k] + i) * w[k] : load(src + source[k] + i) * weight[k];
    if (i + lanes <= n) {
      store(dst + i, add ? sum + load(dst + i) : sum);
    } else {
      for (int k = 0; k < n - i; ++k) dst[i + k] = add ? dst[i + k] + sum[k] : sum[k];
    }
  }
}

template <bool add, class T>
static void correlate_some(T* dst, const T* src, const int64_t* source, const T* weight, int64_t taps, int64_t n) {
  switch (taps) {
    case 2:
      return correlate<2, add>(dst, src, source, weight, 2, n);
    case 4:
      return correlate<4, add>(dst, src, source, weight, 4, n);
    default:
      return correlate<0, add>(dst, src, source, weight, static_cast<int>(taps), n);
  }
}

// Correlates one line, distributed over parts, along x for one term of the filter.
template <bool add, class T>
static void filter_line(const Upfirdn2dPlan<T>& p, const T* parts, int64_t term, T* dst) {
  for (int64_t r = 0; r < p.x.up; ++r) {
    const int64_t* source = p.sources + r * p.most_taps;
    const T* weight = p.fx + (term * p.x.up + r) * p.most_taps;
    correlate_some<add>(dst + r * p.steps, parts, source, weight, p.x.phases[r].count, p.steps);
  }
}

// Computes output rows [first, first + count) of one image. All rows go through each step together. If a line were read
// back right after it was written, at another alignment, the read would wait until the stores have left the processor.
template <class T>
static void run_block(const Upfirdn2dPlan<T>& p, const T* image, T* out, int64_t first, int64_t count, T* scratch) {
  const int64_t length = p.x.out * p.pixel;
  T* phases = scratch + p.block * p.room + overhang;  // output phases, merged at the end
  bool any[most_block] = {}, found[most_block];
  for (int64_t term = 0; term < p.terms; ++term) {
    const int64_t tap_begin = p.terms == 1 ? 0 : term, tap_end = p.terms == 1 ? INT64_MAX : term + 1;
    for (int64_t b = 0; b < count; ++b) {
      T* line = scratch + b * p.room;
      found[b] = combine_rows(p, image, first + b, tap_begin, tap_end, line + p.margin);
      if (!found[b] || p.x.down == 1) continue;
      split(line, line + p.parts, p.part_in, p.x.down, p.line / p.x.down / p.pixel, p.pixel);
    }
    for (int64_t b = 0; b < count; ++b) {
      if (!found[b]) continue;
      const T* parts = scratch + b * p.room + p.parts;
      T* dst = p.x.up == 1 ? out + b * length : phases + b * p.x.up * p.steps;
      any[b] ? filter_line<true>(p, parts, term, dst) : filter_line<false>(p, parts, term, dst);
      any[b] = true;
    }
  }
  for (int64_t b = 0; b < count; ++b) {
    if (!any[b])
      __builtin_memset(out + b * length, 0, length * sizeof(T));
    else if (p.x.up > 1)
      merge(phases + b * p.x.up * p.steps, p.steps, p.x.up, out + b * length, p.x.out, p.pixel);
  }
}

template <class T>
static void run(const Upfirdn2dPlan<T>& p, const T* x, T* y, T* scratch, int64_t begin, int64_t end) {
  const int64_t length_in = p.y.in * p.x.in * p.pixel, length_out = p.x.out * p.pixel;
  while (begin < end) {
    const int64_t first = begin % p.y.out;
    int64_t count = p.y.out - first < p.block ? p.y.out - first : p.block;
    if (count > end - begin) count = end - begin;
    run_block(p, x + begin / p.y.out * length_in, y + begin * length_out, first, count, scratch);
    begin += count;
  }
}

}  // namespace EG3D_ISA

EG3D_DEFINE_KERNELS(Upfirdn2dKernels, upfirdn2d) = {EG3D_ISA::run<float>, EG3D_ISA::run<double>};

}  // namespace eg3d

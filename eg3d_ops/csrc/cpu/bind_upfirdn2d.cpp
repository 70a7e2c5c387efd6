// upfirdn2d for tensors on the CPU. upfirdn2d.py defines the schema.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../layout.h"
#include "huge_pages.h"
#include "upfirdn2d.h"

namespace eg3d {
namespace {

using torch::headeronly::MemoryFormat;

constexpr int64_t grain = 16384;         // fewest output numbers that justify a thread
constexpr int64_t block_numbers = 8192;  // in the lines processed together, which then stay in the L1 cache

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

struct Axis {
  ResampleAxis shape;
  std::vector<OutputPhase> phases;

  Axis(int64_t in, int64_t taps, int64_t up, int64_t down, int64_t before, int64_t after) {
    STD_TORCH_CHECK(up >= 1 && down >= 1, "upfirdn2d: up and down must be at least 1");
    const int64_t spare = in * up + before + after - taps;
    STD_TORCH_CHECK(in >= 1 && taps >= 1 && spare >= 0, "upfirdn2d: the filter does not fit the padded image");
    for (int64_t r = 0; r < up; ++r) {
      const int64_t first = floor_div(r * down - before + up - 1, up);
      const int64_t last = floor_div(taps - 1 + r * down - before, up);
      phases.push_back({first, last - first + 1, first * up + before - r * down});
    }
    shape = {in, spare / down + 1, up, down, phases.data()};
  }

  int64_t most_taps() const {
    int64_t most = 0;
    for (const OutputPhase& phase : phases) most = std::max(most, phase.count);
    return most;
  }
};

// A filter as a sum of products of columns and rows, in the order of a correlation.
struct Factors {
  std::vector<double> column;             // [taps]
  std::vector<std::vector<double>> rows;  // one row, or one per tap of the column

  // f is [rows, columns], or a single row that is applied along both axes.
  Factors(std::vector<double> f, int64_t columns, bool both_axes, bool flip, double tolerance) {
    if (!flip) std::reverse(f.begin(), f.end());
    if (both_axes) {
      column = f;
      rows = {f};
    } else if (!separate(f, columns, tolerance)) {
      column.assign(f.size() / columns, 1.0);
      for (auto row = f.begin(); row != f.end(); row += columns) rows.emplace_back(row, row + columns);
    }
  }

  // Factors f through its smallest nonzero element, because integer taps then stay integers. Returns true if every
  // element of the product is accurate to `tolerance`.
  bool separate(const std::vector<double>& f, int64_t columns, double tolerance) {
    const auto smaller = [](double a, double b) { return b == 0 || (a != 0 && std::fabs(a) < std::fabs(b)); };
    const int64_t pivot = std::min_element(f.begin(), f.end(), smaller) - f.begin();
    if (f[pivot] == 0) return false;
    const auto row = f.begin() + pivot / columns * columns;
    std::vector<double> across(row, row + columns), along;
    for (size_t i = pivot % columns; i < f.size(); i += columns) along.push_back(f[i] / f[pivot]);
    double largest = 0;
    for (size_t i = 0; i < f.size(); ++i) {
      const double product = along[i / columns] * across[i % columns];
      if (!(std::fabs(product - f[i]) <= tolerance * std::fabs(f[i]))) return false;
      largest = std::max(largest, std::fabs(along[i / columns]));
    }
    const int exponent = std::ilogb(largest);  // keeps sums of rows at the magnitude of the rows
    for (double& tap : along) tap = std::scalbn(tap, -exponent);
    for (double& tap : across) tap = std::scalbn(tap, exponent);
    column = along;
    rows = {across};
    return true;
  }
};

// Owns the memory that an Upfirdn2dPlan points to.
template <class T>
struct Plan {
  Upfirdn2dPlan<T> plan{};
  std::vector<T> fx, fy;
  std::vector<int64_t> sources;

  Plan(const Axis& x, const Axis& y, int64_t pixel, const Factors& f, double gain) {
    plan.x = x.shape;
    plan.y = y.shape;
    plan.pixel = pixel;
    plan.terms = static_cast<int64_t>(f.rows.size());
    plan.most_taps = x.most_taps();
    for (double tap : f.column) fy.push_back(static_cast<T>(tap * gain));
    place_line(x);
    for (const std::vector<double>& row : f.rows)
      for (const OutputPhase& phase : x.phases)
        for (int64_t k = 0; k < plan.most_taps; ++k)
          fx.push_back(k < phase.count ? static_cast<T>(row[phase.tap + k * x.shape.up]) : T(0));
    plan.fx = fx.data();
    plan.fy = fy.data();
    plan.sources = sources.data();
  }

  void place_line(const Axis& x) {
    const int64_t steps = (x.shape.out + x.shape.up - 1) / x.shape.up, down = x.shape.down;
    const int64_t margin = std::max<int64_t>(0, -x.phases.front().first);
    const OutputPhase& end = x.phases.back();
    const int64_t read = down * (steps - 1) + end.first + end.count;  // one past the last pixel read
    const int64_t pixels = (margin + std::max(x.shape.in, read) + down - 1) / down * down;
    plan.steps = steps * plan.pixel;
    plan.margin = margin * plan.pixel;
    plan.line = pixels * plan.pixel;
    plan.parts = down == 1 ? 0 : plan.line;
    plan.part_in = plan.line / down + (down == 1 ? 0 : overhang);
    plan.room = plan.parts + down * plan.part_in;
    plan.block = std::clamp<int64_t>(block_numbers / plan.line, 1, most_block);
    for (const OutputPhase& phase : x.phases)
      for (int64_t k = 0; k < plan.most_taps; ++k) {
        const int64_t at = margin + phase.first + std::min(k, std::max<int64_t>(0, phase.count - 1));
        sources.push_back(at % down * plan.part_in + at / down * plan.pixel);
      }
  }

  void run(const Tensor& x, const Tensor& y) const {
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    const int64_t numbers = plan.x.out * plan.pixel, rows = y.numel() / numbers;
    const Upfirdn2dKernels& kernels = upfirdn2d_kernels();
    torch::stable::parallel_for(0, rows, std::max<int64_t>(1, grain / numbers), [&](int64_t begin, int64_t end) {
      std::vector<T> scratch(plan.block * (plan.room + plan.x.up * plan.steps) + overhang);
      if constexpr (sizeof(T) == 4)
        kernels.run_float(plan, from, to, scratch.data(), begin, end);
      else
        kernels.run_double(plan, from, to, scratch.data(), begin, end);
    });
  }
};

Tensor upfirdn2d(const Tensor& x, const Tensor& f, const std::vector<int64_t>& up, const std::vector<int64_t>& down,
                 const std::vector<int64_t>& padding, bool flip_filter, double gain) {
  STD_TORCH_CHECK(x.dim() == 4 && up.size() == 2 && down.size() == 2 && padding.size() == 4, "upfirdn2d: wrong ranks");
  STD_TORCH_CHECK(f.scalar_type() == ScalarType::Float && (f.dim() == 1 || f.dim() == 2), "upfirdn2d: wrong filter");
  const bool is_float = x.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK(is_float || x.scalar_type() == ScalarType::Double, "upfirdn2d on the CPU: float32 and float64 only");
  const int64_t columns = f.size(f.dim() - 1);
  const Axis along_x(x.size(3), columns, up[0], down[0], padding[0], padding[1]);
  const Axis along_y(x.size(2), f.size(0), up[1], down[1], padding[2], padding[3]);

  const bool channels_last = only_channels_last(x);
  const Tensor y = torch::stable::empty({x.size(0), x.size(1), along_y.shape.out, along_x.shape.out}, x.scalar_type(),
                                        std::nullopt, x.device(), std::nullopt,
                                        channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  if (y.numel() == 0) return y;
  prefer_huge_pages(y);
  const Tensor image = channels_last ? x : torch::stable::contiguous(x);

  const Tensor filter = torch::stable::contiguous(f);
  const float* taps = filter.const_data_ptr<float>();
  // float32 tolerates the rounding of a filter that was computed as a product; float64 must match exactly.
  const double tolerance = is_float ? 4 * std::numeric_limits<float>::epsilon() : 0;
  const Factors factors({taps, taps + filter.numel()}, columns, f.dim() == 1, flip_filter, tolerance);
  const int64_t pixel = channels_last ? x.size(1) : 1;
  if (is_float)
    Plan<float>(along_x, along_y, pixel, factors, gain).run(image, y);
  else
    Plan<double>(along_x, along_y, pixel, factors, gain).run(image, y);
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) { m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d)); }

}  // namespace
}  // namespace eg3d

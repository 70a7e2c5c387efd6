// bias_act, bias_act_grad and bias_act_grad2 for tensors on the CPU. bias_act.py defines the schemas.
#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>
#include <vector>

#include "bias_act.h"
#include "../layout.h"
#include "huge_pages.h"

namespace eg3d {
namespace {

constexpr int64_t grain = 16384;        // fewest elements that justify a thread
constexpr int64_t shortest_run = 64;    // for shorter runs, bias values are repeated in memory
constexpr int64_t spread_length = 512;  // long enough that partly filled vectors at its end are rare

struct Settings {
  int64_t dim, act;
  double alpha, gain, clamp;
};

// The bias values in the memory order of the elements, with `run` and `num_bias` of BiasActArgs in bias_act.h.
template <class T>
struct BiasStretch {
  std::vector<T> values{T(0)};
  int64_t run;

  BiasStretch(const std::optional<Tensor>& b, const Tensor& out, int64_t dim) : run(out.numel()) {
    if (!b.has_value()) return;
    STD_TORCH_CHECK(b->scalar_type() == out.scalar_type(), "bias_act: b and x differ in dtype");
    STD_TORCH_CHECK(dim >= 0 && dim < out.dim() && b->dim() == 1 && b->size(0) == out.size(dim),
                    "bias_act: b does not fit x");
    const Tensor dense = torch::stable::contiguous(*b);
    const T* data = dense.const_data_ptr<T>();
    values.assign(data, data + out.size(dim));
    if (values.size() == 1) return;
    run = out.stride(dim);
    if (run >= shortest_run) return;
    std::vector<T> spread;
    do {
      for (T value : values) spread.insert(spread.end(), run, value);
    } while (static_cast<int64_t>(spread.size()) < spread_length);
    values.swap(spread);
    run = 1;
  }
};

template <class T>
void run_kernel(BiasActArgs<T> args, const Tensor& out, const std::optional<Tensor>& b, const Settings& s) {
  const BiasStretch<T> bias(b, out, s.dim);
  args.act = static_cast<int>(s.act);
  args.out = out.mutable_data_ptr<T>();
  args.bias = bias.values.data();
  args.num_bias = static_cast<int64_t>(bias.values.size());
  args.run = bias.run;
  args.alpha = static_cast<T>(s.alpha);
  args.gain = static_cast<T>(s.gain);
  args.clamp = s.clamp < 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(s.clamp);
  const BiasActKernels& kernels = bias_act_kernels();
  torch::stable::parallel_for(0, out.numel(), grain, [&](int64_t begin, int64_t end) {
    if constexpr (sizeof(T) == 4)
      kernels.run_float(args, begin, end);
    else
      kernels.run_double(args, begin, end);
  });
}

// Runs the kernel on inputs in the layout of `out` = empty_like(`main`). Absent inputs stay null.
Tensor dispatch(BiasActMode mode, const Tensor& main, const Tensor& x, const std::optional<Tensor>& dy,
                const std::optional<Tensor>& v, const std::optional<Tensor>& b, const Settings& s) {
  Tensor out = torch::stable::empty_like(main);
  if (out.numel() == 0) return out;
  prefer_huge_pages(out);
  const auto place = [&](const std::optional<Tensor>& t) -> std::optional<Tensor> {
    if (!t.has_value()) return t;
    check_same_shape("bias_act", *t, main);
    return in_layout_of(out, *t);
  };
  const std::optional<Tensor> x_placed = place(x), dy_placed = place(dy), v_placed = place(v);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    BiasActArgs<T> args{};
    args.mode = mode;
    args.x = x_placed->template const_data_ptr<T>();
    args.dy = dy_placed ? dy_placed->template const_data_ptr<T>() : nullptr;
    args.v = v_placed ? v_placed->template const_data_ptr<T>() : nullptr;
    run_kernel<T>(args, out, b, s);
  };
  switch (main.scalar_type()) {
    case ScalarType::Float:
      run(0.f);
      break;
    case ScalarType::Double:
      run(0.);
      break;
    default:
      STD_TORCH_CHECK(false, "bias_act on the CPU: float32 and float64 only");
  }
  return out;
}

Tensor bias_act(const Tensor& x, const std::optional<Tensor>& b, int64_t dim, int64_t act, double alpha, double gain,
                double clamp) {
  return dispatch(BiasActMode::value, x, x, std::nullopt, std::nullopt, b, {dim, act, alpha, gain, clamp});
}

Tensor bias_act_grad(const Tensor& dy, const std::optional<Tensor>& x, const std::optional<Tensor>& b,
                     const std::optional<Tensor>& y, int64_t dim, int64_t act, double alpha, double gain,
                     double clamp) {
  const Settings settings{dim, act, alpha, gain, clamp};
  if (x.has_value()) return dispatch(BiasActMode::slope, *x, *x, dy, std::nullopt, b, settings);
  STD_TORCH_CHECK(y.has_value() || (act == 0 && clamp < 0), "bias_act_grad: needs x or y");
  const Tensor& sign = y.has_value() ? *y : dy;  // linear without clamp: the result does not depend on it
  return dispatch(BiasActMode::sign, sign, sign, dy, std::nullopt, std::nullopt, settings);
}

Tensor bias_act_grad2(const Tensor& v, const Tensor& dy, const Tensor& x, const std::optional<Tensor>& b, int64_t dim,
                      int64_t act, double alpha, double gain, double clamp) {
  return dispatch(BiasActMode::curvature, x, x, dy, v, b, {dim, act, alpha, gain, clamp});
}

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&bias_act_grad));
  m.impl("bias_act_grad2", TORCH_BOX(&bias_act_grad2));
}

}  // namespace
}  // namespace eg3d

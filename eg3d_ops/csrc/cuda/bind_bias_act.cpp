// bias_act, bias_act_grad and bias_act_grad2 for tensors on a GPU. bias_act.py defines the schemas.
#include <torch/csrc/stable/library.h>

#include "bias_act.h"
#include "cuda/stream.h"
#include "tensors.h"

namespace eg3d {
namespace {

using Optional = std::optional<Tensor>;

// The arguments of a launch, its output and its bias. `place` returns other inputs in the layout of `out`.
struct Call {
  ElementType type;
  BiasAct args{};
  Tensor out;
  Optional bias;

  Call(const Tensor& like, const Optional& b, int64_t dim, int64_t act, double alpha, double gain, double clamp)
      : type(element_type("bias_act", like)), out(torch::stable::empty_like(like)) {
    STD_TORCH_CHECK(0 <= act && act <= 8, "bias_act (CUDA): no activation ", act);
    args.count = out.numel();
    args.stride = args.channels = 1;
    args.act = static_cast<int>(act);
    args.alpha = alpha, args.gain = gain, args.clamp = clamp;
    if (!b.has_value()) return;
    STD_TORCH_CHECK(b->scalar_type() == out.scalar_type(), "bias_act (CUDA): b and x differ in dtype");
    STD_TORCH_CHECK(dim >= 0 && dim < out.dim() && b->dim() == 1 && b->size(0) == out.size(dim),
                    "bias_act (CUDA): b does not fit x");
    check_same_device("bias_act", *b, out);
    bias = torch::stable::contiguous(*b);
    if (out.size(dim) > 1) args.stride = out.stride(dim), args.channels = out.size(dim);
  }

  Optional place(const Optional& t) const {
    if (!t.has_value()) return t;
    check_alike("bias_act", *t, out);
    return in_layout_of(out, *t);
  }

  const void* b() const { return data_or_null(bias); }
};

Tensor bias_act(const Tensor& x, const Optional& b, int64_t dim, int64_t act, double alpha, double gain, double clamp) {
  const Call call(x, b, dim, act, alpha, gain, clamp);
  if (call.args.count == 0) return call.out;
  const OnDeviceOf device(x);
  const Optional from = call.place(x);
  launch_bias_act(call.type, call.args, data_or_null(from), call.b(), call.out.mutable_data_ptr(), device.stream);
  return call.out;
}

Tensor bias_act_grad(const Tensor& dy, const Optional& x, const Optional& b, const Optional& y, int64_t dim,
                     int64_t act, double alpha, double gain, double clamp) {
  STD_TORCH_CHECK(x.has_value() || y.has_value() || (act == 0 && clamp < 0), "bias_act_grad (CUDA): needs x or y");
  const Call call(x.has_value() ? *x : y.has_value() ? *y : dy, b, dim, act, alpha, gain, clamp);
  if (call.args.count == 0) return call.out;
  const OnDeviceOf device(dy);
  const Optional from = call.place(dy), at = call.place(x), out = call.place(y);
  launch_bias_act_grad(call.type, call.args, data_or_null(from), data_or_null(at), call.b(), data_or_null(out),
                       call.out.mutable_data_ptr(), device.stream);
  return call.out;
}

Tensor bias_act_grad2(const Tensor& v, const Tensor& dy, const Tensor& x, const Optional& b, int64_t dim, int64_t act,
                      double alpha, double gain, double clamp) {
  const Call call(x, b, dim, act, alpha, gain, clamp);
  if (call.args.count == 0) return call.out;
  const OnDeviceOf device(x);
  const Optional from = call.place(v), first = call.place(dy), at = call.place(x);
  launch_bias_act_grad2(call.type, call.args, data_or_null(from), data_or_null(first), data_or_null(at), call.b(),
                        call.out.mutable_data_ptr(), device.stream);
  return call.out;
}

}  // namespace
}  // namespace eg3d

STABLE_TORCH_LIBRARY_IMPL(eg3d_ops, CUDA, m) {
  m.impl("bias_act", TORCH_BOX(&eg3d::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&eg3d::bias_act_grad));
  m.impl("bias_act_grad2", TORCH_BOX(&eg3d::bias_act_grad2));
}

"""Bias, activation, gain and clamp in one pass: y = clamp(gain * f(x + b)).

`bias_act` runs compiled code where possible; `_bias_act` is its reference implementation in plain PyTorch.
Both are twice differentiable.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._backend import use_compiled
from ._checks import check_device, check_int, check_kernel_dtype, check_number, check_shape, check_tensor
from ._library import LIBRARY, NAMESPACE, define


@dataclass(frozen=True)
class Activation:
    index: int  # number of the activation in the kernels
    gain: float  # default gain; it roughly keeps the variance of normally distributed input
    piecewise_linear: bool  # f'' = 0, and f' depends only on the sign of y
    function: Callable[[Tensor, float], Tensor]


ACTIVATIONS = {
    "linear": Activation(0, 1.0, True, lambda x, alpha: x),
    "relu": Activation(1, math.sqrt(2), True, lambda x, alpha: F.relu(x)),
    "lrelu": Activation(2, math.sqrt(2), True, lambda x, alpha: F.leaky_relu(x, alpha)),
    "tanh": Activation(3, 1.0, False, lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(4, 1.0, False, lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(5, 1.0, False, lambda x, alpha: F.elu(x)),
    "selu": Activation(6, 1.0, False, lambda x, alpha: F.selu(x)),
    "softplus": Activation(7, 1.0, False, lambda x, alpha: F.softplus(x)),
    "swish": Activation(8, math.sqrt(2), False, lambda x, alpha: F.silu(x)),
}
_BY_INDEX = list(ACTIVATIONS)
NO_CLAMP = -1.0  # the kernels' value for None


def bias_act(
    x: Tensor,
    b: Tensor | None = None,  # [x.shape[dim]]
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Return clamp(gain * f(x + b)) in the shape, dtype and memory layout of x.

    b      one number per index of dimension `dim`; cast to x.dtype. None: no bias.
    act    linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
    alpha  negative slope of lrelu, default 0.2; the other activations ignore it.
    gain   default sqrt(2) for relu, lrelu and swish, 1 for the others.
    clamp  limits the result to [-clamp, clamp]; None: no limit.
    impl   "auto", "compiled" or "reference".
    """
    check_tensor("x", x)
    if act not in ACTIVATIONS:
        raise ValueError(f"act={act!r}: must be one of {', '.join(ACTIVATIONS)}")
    alpha = 0.2 if alpha is None else check_number("alpha", alpha)
    gain = ACTIVATIONS[act].gain if gain is None else check_number("gain", gain)
    clamp = None if clamp is None else check_number("clamp", clamp)
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must be at least 0, got {clamp}; None means no clamp")
    if b is None:
        dim = 0  # unused; x may even be a scalar
    else:
        b = _check_bias(b, x, dim)
    if use_compiled(impl, x.device) and check_kernel_dtype("bias_act", x, impl):
        limit = NO_CLAMP if clamp is None else clamp
        return torch.ops.eg3d_ops.bias_act(x, b, dim, ACTIVATIONS[act].index, alpha, gain, limit)
    return _bias_act(x, b, dim, act, alpha, gain, clamp)


def _check_bias(b: Tensor, x: Tensor, dim: int) -> Tensor:
    check_tensor("b", b, 1, "[C]")
    if not 0 <= check_int("dim", dim) < x.ndim:
        raise ValueError(f"dim={dim}: must be in 0...{x.ndim - 1} for x of shape {list(x.shape)}")
    check_shape("b", b, [x.shape[dim]], f"dimension {dim} of x, {list(x.shape)}")
    return check_device("b", b, "x", x).to(x.dtype)


def _bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """Compute bias_act in plain PyTorch. The arguments are the same, with the defaults filled in."""
    y = x
    if b is not None:
        y = y + b.reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    y = ACTIVATIONS[act].function(y, alpha)
    if gain != 1:
        y = y * gain
    if clamp is not None and clamp < torch.finfo(y.dtype).max:  # torch rejects a limit beyond the range of the dtype
        y = y.clamp(-clamp, clamp)
    return x.clone() if y is x else y.to(x.dtype)  # autocast promotes some functions to float32


# ----- The compiled op: gradients -----------------------------------------------------------------------

define("bias_act(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp) -> Tensor")
define(
    "bias_act_grad(Tensor dy, Tensor? x, Tensor? b, Tensor? y, int dim, int act, float alpha, float gain, float clamp)"
    " -> Tensor"
)
define(
    "bias_act_grad2(Tensor v, Tensor dy, Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp)"
    " -> Tensor"
)


@torch.library.register_fake(f"{NAMESPACE}::bias_act", lib=LIBRARY)
def _(x: Tensor, b: Tensor | None, *settings: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake(f"{NAMESPACE}::bias_act_grad", lib=LIBRARY)
def _(dy: Tensor, x: Tensor | None, b: Tensor | None, y: Tensor | None, *settings: Any) -> Tensor:
    return torch.empty_like(next(t for t in (x, y, dy) if t is not None))


@torch.library.register_fake(f"{NAMESPACE}::bias_act_grad2", lib=LIBRARY)
def _(v: Tensor, dy: Tensor, x: Tensor, b: Tensor | None, *settings: Any) -> Tensor:
    return torch.empty_like(x)


def _sum_to_bias(gradient: Tensor, dim: int) -> Tensor:
    return gradient.sum([d for d in range(gradient.ndim) if d != dim]) if gradient.ndim > 1 else gradient


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, b, *settings = inputs
    dim, act, alpha, gain, clamp = ctx.settings = settings
    ctx.has_bias = b is not None
    # Save only what f' and the clamp need: y if it determines both, otherwise x and b.
    if act == ACTIVATIONS["linear"].index and clamp < 0:
        ctx.save_for_backward(None, None, None)
    elif ACTIVATIONS[_BY_INDEX[act]].piecewise_linear and gain > 0 and alpha >= 0:
        ctx.save_for_backward(None, None, output)
    else:
        ctx.save_for_backward(x, b, None)


def _backward(ctx: Any, dy: Tensor) -> tuple:
    x, b, y = ctx.saved_tensors
    dx = torch.ops.eg3d_ops.bias_act_grad(dy, x, b, y, *ctx.settings)
    db = _sum_to_bias(dx, ctx.settings[0]) if ctx.has_bias and ctx.needs_input_grad[1] else None
    return dx, db, None, None, None, None, None


def _setup_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    dy, x, b, y, *ctx.settings = inputs
    ctx.curved = x is not None and not ACTIVATIONS[_BY_INDEX[ctx.settings[1]]].piecewise_linear
    ctx.save_for_backward(dy if ctx.curved else None, x, b, y)


def _backward_grad(ctx: Any, v: Tensor) -> tuple:
    dy, x, b, y = ctx.saved_tensors
    d_dy = torch.ops.eg3d_ops.bias_act_grad(v, x, b, y, *ctx.settings)  # bias_act_grad is linear in dy
    dx = db = None  # f'' = 0 unless curved; y only selects the linear piece
    if ctx.curved and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
        dx = torch.ops.eg3d_ops.bias_act_grad2(v, dy, x, b, *ctx.settings)
        db = None if b is None else _sum_to_bias(dx, ctx.settings[0])
    return d_dy, dx, db, None, None, None, None, None, None


def _setup_grad2(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.act = inputs[5]


def _backward_grad2(ctx: Any, v: Tensor) -> tuple:
    name = _BY_INDEX[ctx.act]
    raise NotImplementedError(f"third derivatives of bias_act(act={name!r}) are not compiled; use impl='reference'")


for _op, _rule, _context in (
    ("bias_act", _backward, _setup),
    ("bias_act_grad", _backward_grad, _setup_grad),
    ("bias_act_grad2", _backward_grad2, _setup_grad2),
):
    torch.library.register_autograd(f"{NAMESPACE}::{_op}", _rule, setup_context=_context, lib=LIBRARY)

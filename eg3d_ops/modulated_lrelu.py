"""Everything behind a modulated convolution in one pass over its result: demodulation, noise, bias, leaky ReLU, clamp,
and the style of the next convolution.

    y[n, c, p] = clamp(gain * lrelu(x[n, c, p] * scale[n, c] + noise[n, p] + b[c])) * next_scale[n, c]

It is for inference: `_modulated_lrelu`, the reference implementation in plain PyTorch, is differentiable, and the
compiled op is not.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._backend import use_compiled
from ._checks import check_device, check_kernel_dtype, check_number, check_shape, check_tensor
from ._library import LIBRARY, NAMESPACE, define
from .bias_act import NO_CLAMP


def modulated_lrelu(
    x: Tensor,  # [N, C, H, W]
    scale: Tensor,  # [N, C]
    b: Tensor,  # [C]
    noise: Tensor | None = None,  # [H, W] or [N, 1, H, W]
    next_scale: Tensor | None = None,  # [N, C]
    alpha: float = 0.2,
    gain: float = 2**0.5,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Return the above in the shape, dtype and memory layout of x. The arithmetic is float32, or float64 if x is.

    alpha  negative slope of the leaky ReLU.
    clamp  limits the result to [-clamp, clamp], before `next_scale`; None: no limit.
    impl   "auto", "compiled" or "reference".
    """
    size = check_tensor("x", x, 4, "[N, C, H, W]").shape
    parts = check_parts(tuple(size), x, scale, b, noise, next_scale, alpha, gain, clamp)
    if use_compiled(impl, x.device) and check_kernel_dtype("modulated_lrelu", x, impl):
        return torch.ops.eg3d_ops.modulated_lrelu(x, *parts)
    return _modulated_lrelu(x, *parts)


Parts = tuple[Tensor, Tensor, Tensor | None, Tensor | None, float, float, float]


def check_parts(
    size: tuple[int, ...],  # of the result
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    noise: Tensor | None,
    next_scale: Tensor | None,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Parts:
    """Check everything behind x, and return it in the type of the arithmetic, with a negative number for no clamp."""
    n, c, h, w = size
    inner = torch.promote_types(x.dtype, torch.float32)

    def part(name: str, value: Tensor, shape: list[int], why: str) -> Tensor:
        return check_device(name, check_shape(name, check_tensor(name, value), shape, why), "x", x).to(inner)

    scale = part("scale", scale, [n, c], "[N, C] of the result")
    b = part("b", b, [c], "[C] of the result")
    if noise is not None:
        own = isinstance(noise, Tensor) and noise.ndim == 4
        noise = part("noise", noise, [n, 1, h, w] if own else [h, w], "[H, W] or [N, 1, H, W] of the result")
    if next_scale is not None:
        next_scale = part("next_scale", next_scale, [n, c], "[N, C] of the result")
    limit = NO_CLAMP if clamp is None else check_number("clamp", clamp)
    if clamp is not None and limit < 0:
        raise ValueError(f"clamp must be at least 0, got {clamp}; None means no clamp")
    return scale, b, noise, next_scale, check_number("alpha", alpha), check_number("gain", gain), limit


def _modulated_lrelu(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    noise: Tensor | None,
    next_scale: Tensor | None,
    alpha: float,
    gain: float,
    clamp: float,  # negative: no clamp
) -> Tensor:
    """Compute modulated_lrelu in plain PyTorch. The arguments are the same, already checked and converted."""
    y = x.to(scale.dtype) * scale[:, :, None, None]
    if noise is not None:
        y = y + noise
    y = F.leaky_relu(y + b[:, None, None], alpha) * gain
    if clamp >= 0:
        y = y.clamp(-clamp, clamp)
    if next_scale is not None:
        y = y * next_scale[:, :, None, None]
    return y.to(x.dtype)


define(
    "modulated_lrelu(Tensor x, Tensor scale, Tensor b, Tensor? noise, Tensor? next_scale, float alpha, float gain, "
    "float clamp) -> Tensor"
)


@torch.library.register_fake(f"{NAMESPACE}::modulated_lrelu", lib=LIBRARY)
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


def _no_gradient(ctx: Any, *gradients: Tensor) -> tuple:
    raise NotImplementedError("modulated_lrelu is compiled for inference only; use impl='reference' for gradients")


torch.library.register_autograd(f"{NAMESPACE}::modulated_lrelu", _no_gradient, lib=LIBRARY)

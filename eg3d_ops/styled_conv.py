"""A 3x3 convolution and everything behind it, for float32 inference on a CPU: Winograd's F(2x2, 3x3).

    y = modulated_lrelu(conv2d(x, weight, padding=1), ...)

Each tile of 2 x 2 outputs takes 16 multiplications per pair of channels instead of 36, at 1 to 3 times the rounding
error of a direct convolution (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). The weight is
transformed once, by `winograd_weight`. `_styled_conv3x3` is the reference implementation in plain PyTorch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._backend import use_compiled
from ._checks import check_shape, check_tensor
from ._library import LIBRARY, NAMESPACE, define
from .modulated_lrelu import _modulated_lrelu, check_parts

PANEL = 64  # output channels that the kernel computes together
MULTIPLE = 16  # numbers of channels that the kernel takes

_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
_BT = ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
_AT = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))


def winograd_weight(weight: Tensor) -> Tensor:  # [Co, Ci, 3, 3] -> [panels, 16, Ci, 64]
    """Return G w Gt, computed in float64, with zeros behind the last channel."""
    check_tensor("weight", weight, 4, "[Co, Ci, 3, 3]")
    check_shape("weight", weight, [*weight.shape[:2], 3, 3], "[Co, Ci, 3, 3]")
    co, ci = weight.shape[:2]
    g = weight.new_tensor(_G, dtype=torch.float64)
    w = weight.permute(2, 3, 1, 0).double().flatten(2)  # [3, 3, Ci Co]
    u = g @ (g @ w.flatten(1)).unflatten(1, w.shape[1:])  # [4, 4, Ci Co]
    u = u.reshape(16, ci, co)
    u = F.pad(u, (0, -co % PANEL)).unflatten(2, (-1, PANEL))  # [16, Ci, panels, 64]
    return u.permute(2, 0, 1, 3).to(weight.dtype).contiguous()


def styled_conv3x3(
    x: Tensor,  # [N, Ci, H, W]
    u: Tensor,  # from winograd_weight
    scale: Tensor,  # [N, Co]
    b: Tensor,  # [Co]
    noise: Tensor | None = None,  # [H, W] or [N, 1, H, W]
    next_scale: Tensor | None = None,  # [N, Co]
    alpha: float = 0.2,
    gain: float = 2**0.5,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:  # [N, Co, H, W]
    """Return the above. Arguments from `scale` on are those of `modulated_lrelu`.

    The compiled op takes float32 on a CPU, with numbers of channels that are multiples of 16.
    """
    n, ci, h, w = check_tensor("x", x, 4, "[N, Ci, H, W]").shape
    co = check_tensor("b", b, 1, "[Co]").shape[0]
    check_shape("u", check_tensor("u", u), [-(-co // PANEL), 16, ci, PANEL], "from winograd_weight, Ci as x, Co as b")
    parts = check_parts((n, co, h, w), x, scale, b, noise, next_scale, alpha, gain, clamp)
    reason = _beyond_compiled(x, co)
    if use_compiled(impl, x.device) and not reason:
        channels_last = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.eg3d_ops.styled_conv3x3(channels_last, u, *parts)
    if reason and impl == "compiled":
        raise ValueError(f"compiled styled_conv3x3 takes {reason}; use impl='auto' or 'reference'")
    return _styled_conv3x3(x, u, *parts)


def _beyond_compiled(x: Tensor, co: int) -> str:
    """Return what the compiled op demands and this call does not give, or an empty string."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return f"float32 on a CPU, got {x.dtype} on {x.device}"
    if x.shape[1] % MULTIPLE or co % MULTIPLE:
        return f"multiples of {MULTIPLE} channels, got {x.shape[1]} and {co}"
    return ""


def _styled_conv3x3(x: Tensor, u: Tensor, scale: Tensor, b: Tensor, *rest: Any) -> Tensor:
    """Compute styled_conv3x3 in plain PyTorch. The arguments are the same, already checked and converted."""
    n, _, h, w = x.shape
    at, bt = (x.new_tensor(matrix, dtype=scale.dtype) for matrix in (_AT, _BT))
    weight = u.permute(1, 2, 0, 3).flatten(2)[..., : len(b)].unflatten(0, (4, 4)).to(scale.dtype)  # [4, 4, Ci, Co]
    d = F.pad(x.to(scale.dtype), (1, 2, 1, 2)).unfold(2, 4, 2).unfold(3, 4, 2)  # [N, Ci, tiles y, tiles x, 4, 4]
    v = torch.einsum("pi, ncyxij, qj -> pqnyxc", bt, d, bt)
    m = torch.einsum("pqnyxc, pqco -> nopqyx", v, weight)
    y = torch.einsum("ip, nopqyx, jq -> noyixj", at, m, at)
    y = y.reshape(n, len(b), 2 * y.shape[2], 2 * y.shape[4])[:, :, :h, :w]
    return _modulated_lrelu(y, scale, b, *rest).to(x.dtype)


define(
    "styled_conv3x3(Tensor x, Tensor u, Tensor scale, Tensor b, Tensor? noise, Tensor? next_scale, float alpha, "
    "float gain, float clamp) -> Tensor"
)


@torch.library.register_fake(f"{NAMESPACE}::styled_conv3x3", lib=LIBRARY)
def _(x: Tensor, u: Tensor, scale: Tensor, b: Tensor, *rest: Any) -> Tensor:
    size = (x.shape[0], b.shape[0], *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _no_gradient(ctx: Any, *gradients: Tensor) -> tuple:
    raise NotImplementedError("styled_conv3x3 is compiled for inference only; use impl='reference' for gradients")


torch.library.register_autograd(f"{NAMESPACE}::styled_conv3x3", _no_gradient, lib=LIBRARY)

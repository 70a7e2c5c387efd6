"""Upsample, pad, filter, downsample: the resampling step of StyleGAN networks in one op.

`upfirdn2d` runs compiled code where possible; `_upfirdn2d` is its reference implementation in plain PyTorch.
The gradient with respect to x is again an upfirdn2d, so both are differentiable to any order. Filters have no
gradient.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ._backend import use_compiled
from ._checks import check_device, check_int, check_kernel_dtype, check_number, check_tensor
from ._library import LIBRARY, NAMESPACE, define

Pair = tuple[int, int]  # along x, along y


class Padding(NamedTuple):
    x0: int  # left; negative numbers crop
    x1: int
    y0: int  # top
    y1: int


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,  # [fh, fw], or [taps] applied along x and along y
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Resample every channel separately: insert zeros, pad or crop, convolve, decimate.

    f        float32 filter from `setup_filter`; None: the identity.
    up       insert up - 1 zeros after each pixel; an int or [x, y].
    padding  zeros around the upsampled image; negative numbers crop. An int, [x, y] or [x0, x1, y0, y1].
    flip_filter  False: convolution; True: correlation.
    gain     factor on the result.
    down     keep the filtered pixels 0, down, 2 down, ...; an int or [x, y].
    impl     "auto", "compiled" or "reference".
    """
    check_tensor("x", x, 4, "[N, C, H, W]")
    f = torch.ones([1, 1], device=x.device) if f is None else check_filter(f, x)
    up, down, pad = parse_pair("up", up), parse_pair("down", down), parse_padding(padding)
    gain = check_number("gain", gain)
    _check_sizes(x, f, up, down, pad)
    if use_compiled(impl, x.device) and check_kernel_dtype("upfirdn2d", x, impl):
        return torch.ops.eg3d_ops.upfirdn2d(x, f, up, down, pad, bool(flip_filter), gain)
    return _upfirdn2d(x, f, up, down, pad, bool(flip_filter), gain)


def _upfirdn2d(x: Tensor, f: Tensor, up: Pair, down: Pair, padding: Padding, flip_filter: bool, gain: float) -> Tensor:
    """Compute upfirdn2d in plain PyTorch. The arguments are the same, already parsed."""
    (ux, uy), (dx, dy) = up, down
    n, c, h, w = x.shape
    if up != (1, 1):
        spread = x.new_zeros(n, c, h * uy, w * ux)
        spread[:, :, ::uy, ::ux] = x
        x = spread
    x = F.pad(x, padding)
    f = f.to(x.dtype)
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))  # torch's convolution is a correlation
    with _no_autocast(x.device.type):
        if f.ndim == 2:
            return F.conv2d(x, (f * gain).expand(c, 1, -1, -1), groups=c, stride=(dy, dx))  # [N, C, H', W']
        x = F.conv2d(x, (f * gain)[None, :].expand(c, 1, -1, -1), groups=c, stride=(1, dx))
        return F.conv2d(x, f[:, None].expand(c, 1, -1, -1), groups=c, stride=(dy, 1))


def _no_autocast(device_type: str) -> AbstractContextManager:
    """Return a context without autocast, which would convert float32 images to half precision in a convolution."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)


# ----- Arguments ----------------------------------------------------------------------------------------


def parse_pair(name: str, value: int | Sequence[int]) -> Pair:
    """Return the factors for x and y, given as an int or [x, y]."""
    values = _integers(name, value, (1, 2), "an int or [x, y]")
    return check_int(name, values[0], 1), check_int(name, values[-1], 1)


def parse_padding(value: int | Sequence[int]) -> Padding:
    """Return the padding of each side, given as an int, [x, y] or [x0, x1, y0, y1]."""
    values = _integers("padding", value, (1, 2, 4), "an int, [x, y] or [x0, x1, y0, y1]")
    if len(values) == 4:
        return Padding(*values)
    x, y = values[0], values[-1]
    return Padding(x, x, y, y)


def _integers(name: str, value: object, lengths: tuple[int, ...], rule: str) -> list[int]:
    if isinstance(value, str) or not isinstance(value, int | Sequence):
        raise TypeError(f"{name} must be {rule}, got {value!r}")
    values = [value] if isinstance(value, int) else list(value)
    if len(values) not in lengths:
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return [check_int(name, v) for v in values]


def check_filter(f: Tensor, x: Tensor) -> Tensor:
    check_tensor("f", f, (1, 2), "[taps] or [fh, fw]")
    if f.numel() == 0:
        raise ValueError(f"f must have at least one tap, got shape {list(f.shape)}; use None for no filter")
    if f.dtype != torch.float32:
        raise TypeError(f"f must be float32, got {f.dtype}; make it with setup_filter or convert it with f.float()")
    if f.requires_grad:
        raise ValueError("f requires grad, but filters have no gradient; pass f.detach()")
    check_device("f", f, "x", x)
    _check_finite(f)
    return f


# Filters whose values were found finite, with the version that was checked; None: inference tensors have no version, so
# their later changes are not noticed. Reading a filter on a GPU waits for the GPU, so each is checked only once.
_finite: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _check_finite(f: Tensor) -> None:
    if torch.compiler.is_compiling() or f.device.type == "meta":
        return  # there are no values to check
    remember = f.device.type != "cpu"
    if remember and known_finite(f):
        return
    if not math.isfinite(f.sum(dtype=torch.float64)):  # one pass, and no overflow
        raise ValueError(f"f must be finite, got {f.tolist()}")
    if remember:
        remember_finite(f)


def known_finite(f: Tensor) -> bool:
    """Return whether f was found finite and has not changed since."""
    return f in _finite and _finite[f] == _version(f)


def remember_finite(f: Tensor) -> None:
    _finite[f] = _version(f)


def _version(f: Tensor) -> int | None:
    return None if f.is_inference() else f._version


def _output_size(size: int, taps: int, up: int, down: int, before: int, after: int) -> int:
    return (size * up + before + after - taps) // down + 1


def _check_sizes(x: Tensor, f: Tensor, up: Pair, down: Pair, p: Padding) -> None:
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have at least one channel and one pixel, got shape {list(x.shape)}")
    sides = (("width", 3, up[0], p.x0, p.x1, f.shape[-1]), ("height", 2, up[1], p.y0, p.y1, f.shape[0]))
    for name, dim, factor, before, after, taps in sides:
        size = x.shape[dim]
        if size * factor + min(before, 0) + min(after, 0) < 1:
            raise ValueError(f"padding {list(p)} crops the whole {name}: {size} pixels, upsampled {factor} times")
        if size * factor + before + after < taps:
            raise ValueError(
                f"the filter does not fit: {name} {size} upsampled {factor} times and padded by {before} and {after} "
                f"is less than its {taps} taps; pad more or use a smaller filter"
            )


# ----- The compiled op ----------------------------------------------------------------------------------

define("upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, int[] padding, bool flip_filter, float gain) -> Tensor")


@torch.library.register_fake(f"{NAMESPACE}::upfirdn2d", lib=LIBRARY)
def _(x: Tensor, f: Tensor, up: Pair, down: Pair, padding: Padding, flip_filter: bool, gain: float) -> Tensor:
    n, c, h, w = x.shape
    height = _output_size(h, f.shape[0], up[1], down[1], padding[2], padding[3])
    width = _output_size(w, f.shape[-1], up[0], down[0], padding[0], padding[1])
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((n, c, height, width), dtype=x.dtype, device=x.device, memory_format=layout)


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, f, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain = inputs
    ctx.x_size, ctx.y_size = x.shape[2:], output.shape[2:]
    ctx.save_for_backward(f)


def _backward(ctx: Any, dy: Tensor) -> tuple:
    """Apply the transposed map: swap up and down, flip the filter, and pad to get the size of x."""
    (f,) = ctx.saved_tensors
    x0, _, y0, _ = ctx.padding
    padding = [
        *_transposed_padding(ctx.x_size[1], ctx.y_size[1], f.shape[-1], ctx.up[0], ctx.down[0], x0),
        *_transposed_padding(ctx.x_size[0], ctx.y_size[0], f.shape[0], ctx.up[1], ctx.down[1], y0),
    ]
    dx = torch.ops.eg3d_ops.upfirdn2d(dy, f, ctx.down, ctx.up, padding, not ctx.flip_filter, ctx.gain)
    return dx, None, None, None, None, None, None


def _transposed_padding(size: int, out: int, taps: int, up: int, down: int, before: int) -> tuple[int, int]:
    """Return the padding before and after for the transposed map along one axis.

    y[o] = sum_i x[i] k[i up + before - o down], so x[i] collects y[o] k'[o down + (taps - 1 - before) - i up].
    """
    return taps - 1 - before, size * up - out * down + before - up + 1


torch.library.register_autograd(f"{NAMESPACE}::upfirdn2d", _backward, setup_context=_setup, lib=LIBRARY)

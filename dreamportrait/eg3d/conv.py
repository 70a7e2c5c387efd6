"""Convolutions of the StyleGAN2 family, with resampling or modulation, and two small normalisations.

Tensors are [N, C, H, W], weights are [Co, Ci / groups, kh, kw], and `eg3d_ops.setup_filter` makes the filters.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from eg3d_ops import upfirdn2d
from eg3d_ops._checks import check_int, check_shape, check_tensor
from eg3d_ops.upfirdn2d import Padding, parse_padding


def conv2d_resample(
    x: Tensor,  # [N, Ci, H, W]
    w: Tensor,  # [Co, Ci / groups, kh, kw]
    f: Tensor | None = None,  # [fh, fw] or [taps]
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample with f, convolve with w, downsample with f, with one convolution and few filter passes.

    padding      of the convolution, in upsampled pixels: an int, [x, y] or [x0, x1, y0, y1].
    flip_weight  True: correlation, as torch's convolutions are; False: convolution.

    Filtering and convolution commute, so the filter is applied where it costs least.
    """
    _check_conv(x, w, up, down, groups)
    kh, kw = w.shape[2:]
    x0, x1, y0, y1 = pad = _padding(padding, f, up, down)
    gain = up**2  # compensates for the zeros between pixels

    if up == down == 1:
        if x0 == x1 >= 0 and y0 == y1 >= 0:
            return _conv(x, w, groups, flip_weight, padding=(y0, x0))
        return _conv(F.pad(x, pad), w, groups, flip_weight)
    if (kh, kw) == (1, 1) and up == 1:  # convolve only what is kept
        x = upfirdn2d(x, f, down=down, padding=pad, flip_filter=flip_filter)
        return _conv(x, w, groups, flip_weight)
    if (kh, kw) == (1, 1) and down == 1:  # convolve before there are more pixels
        x = _conv(x, w, groups, flip_weight)
        return upfirdn2d(x, f, up=up, padding=pad, gain=gain, flip_filter=flip_filter)
    if up == 1:
        x = upfirdn2d(x, f, padding=pad, flip_filter=flip_filter)
        return _conv(x, w, groups, flip_weight, stride=down)
    # A transposed convolution skips the zeros between pixels. Without padding, it yields kw - 1 more columns than the
    # convolution on each side, but lacks the last up - 1 columns, which depend on zeros only.
    x = _conv_transposed(x, w, groups, flip_weight, stride=up)
    pad = Padding(x0 - (kw - 1), x1 - (kw - 1) + (up - 1), y0 - (kh - 1), y1 - (kh - 1) + (up - 1))
    x = upfirdn2d(x, f, padding=pad, gain=gain, flip_filter=flip_filter)
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


def modulated_conv2d(
    x: Tensor,  # [N, Ci, H, W]
    weight: Tensor,  # [Co, Ci, kh, kw]
    styles: Tensor,  # [N, Ci]
    noise: Tensor | None = None,  # broadcast to the result
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> Tensor:
    """Convolve each sample with `weight`, whose input channels are scaled by the sample's style.

    demodulate     True: scale the weights of each output channel to unit norm.
    fused_modconv  True: one grouped convolution with weights per sample; False: one weight, scaled images.
        The results agree up to rounding.
    """
    n, ci = check_tensor("x", x, 4, "[N, Ci, H, W]").shape[:2]
    co, _, kh, kw = check_tensor("weight", weight, 4, "[Co, Ci, kh, kw]").shape
    check_shape("weight", weight, [co, ci, kh, kw], "[Co, Ci, kh, kw], Ci as x")
    check_shape("styles", check_tensor("styles", styles, 2, "[N, Ci]"), [n, ci], "[N, Ci] as x")
    if demodulate and x.dtype == torch.float16:  # demodulation cancels any scale; this scale keeps sums below 65504
        weight = weight / (largest(weight, (1, 2, 3)) * (ci * kh * kw) ** 0.5)
        styles = styles / largest(styles, (1,))
    demodulation = _demodulation(weight, styles) if demodulate else None  # [N, Co]
    convolve = partial(conv2d_resample, f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)

    if fused_modconv:
        w = weight * styles[:, None, :, None, None]  # [N, Co, Ci, kh, kw]
        if demodulation is not None:
            w = w * demodulation[:, :, None, None, None]
        w = w.reshape(n * co, ci, kh, kw).to(x.dtype)
        if n == 1:  # a reshape, even to the same shape, would lose the channels-last layout
            y = convolve(x, w)
        else:
            y = convolve(x.reshape(1, n * ci, *x.shape[2:]), w, groups=n)  # [1, N * Co, H', W']
            y = y.reshape(n, co, *y.shape[2:])
    else:
        x = x * styles.to(x.dtype)[:, :, None, None]
        y = convolve(x, weight.to(x.dtype))
        if demodulation is not None:
            y = y * demodulation.to(x.dtype)[:, :, None, None]
    return y if noise is None else y + noise.to(y.dtype)


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Scale x so that its mean square along `dim` is 1."""
    return x * (x.square().mean(dim, keepdim=True) + eps).rsqrt()


def minibatch_std(
    x: Tensor,  # [N, C, H, W]
    group_size: int | None = 4,
    num_channels: int = 1,
) -> Tensor:  # [N, C + num_channels, H, W]
    """Append channels with the standard deviation over a group of samples, so that a discriminator can see variety.

    Sample i is in group i mod (N / group_size). With group_size None, or larger than N, all samples are one group.
    """
    check_tensor("x", x, 4, "[N, C, H, W]")
    n, c, h, w = x.shape
    size = n if group_size is None else min(check_int("group_size", group_size, 1), n)
    if n % size:
        raise ValueError(f"group_size={group_size}: must divide the batch of {n}")
    if c % check_int("num_channels", num_channels, 1):
        raise ValueError(f"num_channels={num_channels}: must divide the {c} channels of x")
    grouped = x.reshape(size, n // size, num_channels, c // num_channels, h, w)
    std = (grouped.var(dim=0, correction=0) + 1e-8).sqrt()  # [N / G, F, C / F, H, W]
    std = std.mean(dim=(2, 3, 4))  # [N / G, F]
    std = std.repeat(size, 1)[:, :, None, None].expand(n, num_channels, h, w)
    return torch.cat([x, std], dim=1)


# ----- Parts ----------------------------------------------------------------------------------------------


def _check_conv(x: Tensor, w: Tensor, up: int, down: int, groups: int) -> None:
    check_tensor("x", x, 4, "[N, Ci, H, W]")
    check_tensor("w", w, 4, "[Co, Ci / groups, kh, kw]")
    check_int("up", up, 1)
    check_int("down", down, 1)
    check_int("groups", groups, 1)
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(
            f"x of shape {list(x.shape)} must have w.shape[1] * groups = {w.shape[1]} * {groups} channels "
            f"for w of shape {list(w.shape)}"
        )
    if w.shape[0] % groups:
        raise ValueError(f"groups={groups}: must divide the {w.shape[0]} output channels of w")


def _padding(padding: int | Sequence[int], f: Tensor | None, up: int, down: int) -> Padding:
    """Return the convolution's padding, widened to centre f on the pixels that it upsamples to or downsamples from."""
    x0, x1, y0, y1 = parse_padding(padding)
    fw, fh = (1, 1) if f is None else (f.shape[-1], f.shape[0])
    if up > 1:
        x0, x1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2
        y0, y1 = y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    return Padding(x0, x1, y0, y1)


def largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the largest magnitude along `dims`, clamped to a positive number so that one can divide by it."""
    return x.abs().amax(dims, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return 1 / norm of each sample's modulated weights, per output channel [N, Co]."""
    squares = weight.square().sum(dim=(2, 3))  # [Co, Ci]
    return (styles.square() @ squares.T + 1e-8).rsqrt()


def _conv(
    x: Tensor, w: Tensor, groups: int, flip_weight: bool, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    return F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups, stride=stride, padding=padding)


def _conv_transposed(x: Tensor, w: Tensor, groups: int, flip_weight: bool, stride: int) -> Tensor:
    """Insert zeros between pixels and convolve them with w. Return [N, Co, (H - 1) stride + kh, ...].

    F.conv_transpose2d is the gradient of a correlation, so it convolves: a correlation needs a flipped w.
    """
    co, ci_per_group, kh, kw = w.shape
    w = w.reshape(groups, co // groups, ci_per_group, kh, kw).transpose(1, 2)
    w = w.reshape(groups * ci_per_group, co // groups, kh, kw)  # torch wants input channels first
    return F.conv_transpose2d(x, w.flip([2, 3]) if flip_weight else w, groups=groups, stride=stride)

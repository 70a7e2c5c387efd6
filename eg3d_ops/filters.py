"""Filters for `upfirdn2d` and its three common uses: filter, upsample, downsample. All keep images aligned."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._checks import check_number, check_tensor
from .upfirdn2d import Pair, parse_padding, parse_pair, upfirdn2d

Taps = Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None
SEPARABLE_FROM = 8  # taps; with fewer, two passes cost more than one


def setup_filter(
    f: Taps,
    device: str | torch.device = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Return a float32 filter for upfirdn2d: [taps], applied along x and along y, or [fh, fw].

    f          taps for both axes, a table [fh, fw], a number or None (the identity). It is never modified.
    normalize  scale the taps to sum 1.
    gain       factor on the filtered image, for both axes together.
    separable  keep one-dimensional taps one-dimensional (default: from 8 taps on); if False, use their outer product.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32, device="cpu").detach()
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"f must be a number, [taps] or [fh, fw], and not empty, got shape {list(taps.shape)}")
    if not torch.isfinite(taps).all():
        raise ValueError(f"f must be finite, got {taps.tolist()}")
    taps = taps.reshape(1) if taps.ndim == 0 else taps
    gain = check_number("gain", gain)
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= SEPARABLE_FROM
    if separable and taps.ndim == 2:
        raise ValueError(f"separable=True needs f of rank 1, got shape {list(taps.shape)}")
    if separable and gain < 0:
        raise ValueError(f"gain must be at least 0 for a separable filter, got {gain}; negate its result instead")
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        if taps.sum() == 0:
            raise ValueError(f"f sums to 0 and cannot be scaled to sum 1, got {taps.tolist()}; use normalize=False")
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    share = math.sqrt(gain) if separable else gain  # a separable filter is applied twice
    return (taps * share).to(device)


def filter2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:  # [N, C, H, W] for padding 0
    """Filter x with the zero padding that keeps its size. `padding` is added to it; negative padding crops."""
    fw, fh = _filter_size(f)
    padding = _more_padding(padding, (fw // 2, fh // 2), ((fw - 1) // 2, (fh - 1) // 2))
    return upfirdn2d(x, f, padding=padding, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:  # [N, C, H up, W up] for padding 0
    """Multiply the size by `up`. The values are multiplied by up_x * up_y to compensate for the inserted zeros."""
    (fw, fh), (ux, uy) = _filter_size(f), parse_pair("up", up)
    before = (fw + ux - 1) // 2, (fh + uy - 1) // 2
    padding = _more_padding(padding, before, ((fw - ux) // 2, (fh - uy) // 2))
    gain = check_number("gain", gain) * ux * uy
    return upfirdn2d(x, f, up=(ux, uy), padding=padding, flip_filter=flip_filter, gain=gain, impl=impl)


def downsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:  # [N, C, H / down, W / down] for padding 0
    """Divide the size by `down`."""
    (fw, fh), (dx, dy) = _filter_size(f), parse_pair("down", down)
    before = (fw - dx + 1) // 2, (fh - dy + 1) // 2
    padding = _more_padding(padding, before, ((fw - dx) // 2, (fh - dy) // 2))
    return upfirdn2d(x, f, down=(dx, dy), padding=padding, flip_filter=flip_filter, gain=gain, impl=impl)


def _filter_size(f: Tensor | None) -> Pair:
    """Return the width and height of the filter."""
    if f is None:
        return 1, 1
    check_tensor("f", f, (1, 2), "[taps] or [fh, fw]")
    return f.shape[-1], f.shape[0]


def _more_padding(padding: int | Sequence[int], before: Pair, after: Pair) -> list[int]:
    p = parse_padding(padding)
    return [p.x0 + before[0], p.x1 + after[0], p.y0 + before[1], p.y1 + after[1]]

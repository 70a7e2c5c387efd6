"""Compare the ops of inference with what they replace, at the shapes of the FFHQ-512 networks with batch size 1.

`python -m benchmarks.ops` runs it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, side_by_side
from dreamportrait.core.timing import kernel_seconds
from eg3d_ops.modulated_lrelu import modulated_lrelu
from eg3d_ops.styled_conv import styled_conv3x3, winograd_weight

SHAPES = ((512, 64), (256, 128), (128, 256), (256, 256), (128, 512))  # channels, resolution


@torch.inference_mode()
def run(device: str = "cpu", repeats: int = 5) -> list[Row]:
    rows: list[Row] = []
    for channels, resolution in SHAPES:
        x = torch.randn(1, channels, resolution, resolution, device=device).to(memory_format=torch.channels_last)
        scale, next_scale = torch.rand(2, 1, channels, device=device).unbind()
        b, noise = torch.randn(channels, device=device), torch.randn(resolution, resolution, device=device)
        after: dict[str, Any] = {"scale": scale, "b": b, "noise": noise, "next_scale": next_scale}
        reference, compiled = (partial(modulated_lrelu, x, **after, impl=impl) for impl in ("reference", "compiled"))
        rows.append(row("modulated_lrelu", "behind a convolution", x, reference, compiled, repeats, device))
        if device == "cpu":
            weight = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
            placed, u = weight.to(memory_format=torch.channels_last), winograd_weight(weight)
            direct = partial(direct_convolution, x, placed, after)
            own = partial(styled_conv3x3, x, u, **after, impl="compiled")
            rows.append(row("styled_conv3x3", "against conv2d and modulated_lrelu", x, direct, own, repeats, device))
    return rows


def direct_convolution(x: Tensor, weight: Tensor, after: dict[str, Any]) -> Tensor:
    return modulated_lrelu(F.conv2d(x, weight, padding=1), **after, impl="compiled")


def row(
    op: str,
    case: str,
    x: Tensor,
    reference: Callable[[], object],
    compiled: Callable[[], object],
    repeats: int,
    device: str,
) -> Row:
    what = {"op": op, "case": case, "shape": list(x.shape)}
    return what | side_by_side(reference, compiled, repeats, device, clock=kernel_seconds)

"""Tri-planes: the axes of each plane, feature lookup and the decoder.

A plane is an image whose width runs along one world axis and whose height runs along another. It covers a box
of side `box_warp`; the centre of the image is at position 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PlaneAxes = tuple[tuple[int, int], ...]  # per plane: the world axes along its width and its height

PLANE_AXES: dict[str, PlaneAxes] = {
    # Released EG3D checkpoints: XY, XZ, ZX. The last two span the same axes in opposite order; no plane spans YZ.
    "official": ((0, 1), (0, 2), (2, 0)),
    # XY, YZ, ZX: every pair of axes once. For networks trained from scratch.
    "xy_yz_zx": ((0, 1), (1, 2), (2, 0)),
}
FORMER_NAMES = {"fixed": "xy_yz_zx"}  # names in older files and code


def parse_plane_axes(plane_axes: str | Sequence[Sequence[int]]) -> PlaneAxes:
    """Return the axes of each plane, from a name of `PLANE_AXES` or from pairs of axes."""
    if isinstance(plane_axes, str):
        plane_axes = FORMER_NAMES.get(plane_axes, plane_axes)
        if plane_axes not in PLANE_AXES:
            raise ValueError(f"plane_axes={plane_axes!r}: must be one of {', '.join(PLANE_AXES)}, or pairs of axes")
        return PLANE_AXES[plane_axes]
    pairs = tuple((int(pair[0]), int(pair[1])) for pair in plane_axes if len(pair) == 2)
    if len(pairs) != len(plane_axes) or not all(a != b and {a, b} <= {0, 1, 2} for a, b in pairs):
        raise ValueError(f"plane_axes={plane_axes!r}: each plane needs two different axes out of 0 (x), 1 (y), 2 (z)")
    return pairs


class Decoder(NamedTuple):
    """The two fully connected layers after a plane lookup. Output 0 is density; the others are colour."""

    w1: Tensor  # [Hd, C]
    b1: Tensor  # [Hd]
    w2: Tensor  # [1+Co, Hd]
    b2: Tensor  # [1+Co]


def sample_planes(planes: Tensor, points: Tensor, plane_axes: PlaneAxes, box_warp: float) -> Tensor:
    """Return the bilinear features [N, P, M, C] of every plane at points [N, M, 3]; zero outside the planes."""
    n, p, c, h, w = planes.shape
    m = points.shape[1]
    normalised = points * (2 / box_warp)  # the box becomes [-1, 1]^3
    # Single columns, because an index made of a list is copied from the host, and the host waits for the copy.
    along = normalised.unbind(-1)
    grid = torch.stack([torch.stack([along[u], along[v]], -1) for u, v in plane_axes], dim=1)  # [N, P, M, 2]
    features = F.grid_sample(
        planes.reshape(n * p, c, h, w), grid.reshape(n * p, 1, m, 2), padding_mode="zeros", align_corners=False
    )  # [N*P, C, 1, M]
    return features.reshape(n, p, c, m).transpose(2, 3)


def decode(features: Tensor, decoder: Decoder) -> tuple[Tensor, Tensor]:
    """Apply the decoder to the mean features over planes. Return density [N, M, 1] and colour [N, M, Co]."""
    hidden = F.softplus(F.linear(features.mean(1), decoder.w1, decoder.b1))  # [N, M, Hd]
    out = F.linear(hidden, decoder.w2, decoder.b2)  # [N, M, 1+Co]
    # The sigmoid is slightly wider than [0, 1], so that saturated colours are reached at finite inputs (mip-NeRF).
    return out[..., :1], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001

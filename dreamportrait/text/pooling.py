"""What the planes have in common in space.

A cell of a plane stands for a line: all points of the box that are projected onto it. Those points are projected
onto every other plane too. Where that plane spans the line's axis they fill one of its rows or columns, whose mean
is the pooled column; where it does not, because it is the same plane seen from the other side, they meet in one cell.

Which of these holds, and whether a column lies along width or height, follows from the planes' axes alone. On XY, YZ,
ZX a cell (y, x) of XY sees the mean over z of YZ at its y and of ZX at its x. The released EG3D has XY, XZ, ZX: there
it sees two columns at its x and none at its y, and XZ and ZX see each other transposed.
"""

import torch
from torch import Tensor

from eg3d_ops.planes import PlaneAxes


def aggregate(features: Tensor, axes: PlaneAxes) -> Tensor:
    """Each plane with what the next two know of its cells. [N, 3, d, H, H] -> [N, 3, 3d, H, H]

    On XY, YZ, ZX the next plane adds the column along height, the one after it the column along width.
    """
    planes = features.unbind(1)  # [N, d, H, H] each
    return torch.stack(
        [
            torch.cat([planes[p], *(column(planes[q], axes[q], axes[p]) for q in ((p + 1) % 3, (p + 2) % 3))], 1)
            for p in range(3)
        ],
        dim=1,
    )


def without_space(features: Tensor) -> Tensor:
    """Each plane with the next two at the same pixel, wherever that is. [N, 3, d, H, H] -> [N, 3, 3d, H, H]"""
    return torch.cat([features, features.roll(-1, 1), features.roll(-2, 1)], 2)


def column(other: Tensor, other_axes: tuple[int, int], axes: tuple[int, int]) -> Tensor:
    """Another plane [N, d, H, H], as the cells of a plane with these axes see it. -> [N, d, H, H]"""
    for position, axis in zip((-1, -2), other_axes, strict=True):  # width, height
        if axis not in axes:  # along the cell's line
            other = other.mean(position, keepdim=True)
    # What is left is one shared axis, or both; width or height in this plane, perhaps not in the other.
    if any(axis in axes and position != axes.index(axis) for position, axis in enumerate(other_axes)):
        other = other.mT
    size = max(other.shape[-2:])
    return other.expand(-1, -1, size, size)

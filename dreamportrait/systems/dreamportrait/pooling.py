"""What the planes have in common in space.

A cell of a plane stands for a line: all points of the box that are projected onto it. Those points are projected
onto every other plane too. Where that plane spans the line's axis they fill one of its rows or columns, whose mean
is the pooled column; where it does not, because it is the same plane seen from the other side, they meet in one cell.

Which of these holds, and whether a column lies along width or height, follows from the planes' axes alone. On XY, YZ,
ZX a cell of XY at (x, y) sees the mean over z of YZ at y and of ZX at x. The released EG3D has XY, XZ, ZX: there it
sees two columns at x and none at y, and XZ and ZX see each other transposed.

Channels lie last here: planes are [N, H, W, d], and a column is [N, H, 1, d] or [N, 1, W, d].
"""

from collections.abc import Sequence

from torch import Tensor

from eg3d_ops.planes import PlaneAxes

WIDTH, HEIGHT = -2, -3  # where a plane's first and second axis lie


def columns(planes: Sequence[Tensor], axes: PlaneAxes) -> list[tuple[Tensor, Tensor]]:
    """What each of three planes sees of the next one and of the one after that.

    On XY, YZ, ZX that is the column along its height, then the one along its width.
    """
    return [(column(planes[q], axes[q], axes[p]), column(planes[r], axes[r], axes[p])) for p, q, r in _CYCLES]


def same_pixels(planes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The next plane and the one after that, without regard to space."""
    return [(planes[q], planes[r]) for _, q, r in _CYCLES]


_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def column(other: Tensor, other_axes: tuple[int, int], axes: tuple[int, int]) -> Tensor:
    """Another plane, as the cells of a plane with these axes see it; 1 in place of H or W: the same all along it."""
    turned = False
    for side, axis in zip((WIDTH, HEIGHT), other_axes, strict=True):
        if axis not in axes:  # along the cells' lines
            other = other.mean(side, keepdim=True)
        elif side != (WIDTH, HEIGHT)[axes.index(axis)]:
            turned = True
    return other.transpose(WIDTH, HEIGHT) if turned else other

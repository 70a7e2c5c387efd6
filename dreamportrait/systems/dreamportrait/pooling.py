"""3D-aware pooling: for each cell of a plane, the features of the other planes at the same points in space.

A cell of a plane stands for a line: all points of the box that project onto the cell. These points also project onto
every other plane. If the other plane contains the line's axis, the points fill one of its rows or columns, and the mean
of that row or column is the pooled feature. If it does not, because it is the same plane seen from the other side, all
points project onto one cell.

The planes' axes alone decide which case applies, and whether a pooled column lies along width or height. With planes
XY, YZ, ZX, a cell of XY at (x, y) gets the mean over z of YZ at y and of ZX at x. The released EG3D has XY, XZ, ZX:
there a cell of XY gets two columns at x and none at y, and XZ and ZX get each other transposed.

Channels are the last dimension here: planes are [N, H, W, d], and a column is [N, H, 1, d] or [N, 1, W, d].
"""

from collections.abc import Sequence

from torch import Tensor

from eg3d_ops.planes import PlaneAxes

WIDTH, HEIGHT = -2, -3  # the dimensions of a plane's first and second axis


def columns(planes: Sequence[Tensor], axes: PlaneAxes) -> list[tuple[Tensor, Tensor]]:
    """Return for each of three planes the pooled features of the next plane and of the one after that.

    With planes XY, YZ, ZX, each pair is a column along the plane's height and a column along its width.
    """
    return [(column(planes[q], axes[q], axes[p]), column(planes[r], axes[r], axes[p])) for p, q, r in _CYCLES]


def same_pixels(planes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return for each of three planes the next plane and the one after that, without pooling."""
    return [(planes[q], planes[r]) for _, q, r in _CYCLES]


_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def column(other: Tensor, other_axes: tuple[int, int], axes: tuple[int, int]) -> Tensor:
    """Return another plane as seen by the cells of a plane with `axes`. H or W is 1 where all cells see the same."""
    turned = False
    for side, axis in zip((WIDTH, HEIGHT), other_axes, strict=True):
        if axis not in axes:  # the axis of the cells' lines
            other = other.mean(side, keepdim=True)
        elif side != (WIDTH, HEIGHT)[axes.index(axis)]:
            turned = True
    return other.transpose(WIDTH, HEIGHT) if turned else other

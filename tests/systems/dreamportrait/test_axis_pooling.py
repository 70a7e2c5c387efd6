"""Tests of what planes see of each other, for the released axes and for three different planes.

The expected cells are in a hand-made table. A second test computes them from points of the box, which it looks up
with the renderer's own function.
"""

import pytest
import torch
from torch import Tensor

from dreamportrait.systems.dreamportrait.pooling import column, columns, same_pixels
from eg3d_ops.planes import PLANE_AXES, PlaneAxes, sample_planes

SIZE, ROW, COLUMN = 4, 1, 2

# (plane that pools, plane whose cell at row i and column j is set): the cells of the first plane that see this cell.
SEEN = {
    "official": {  # XY, XZ, ZX: width runs along the first axis, height along the second
        (0, 1): "column j",  # XZ's j is x, which is XY's width
        (0, 2): "column i",  # ZX's i is x
        (1, 0): "column j",  # XY's j is x, which is XZ's width
        (1, 2): "cell j, i",  # ZX is XZ transposed
        (2, 0): "row j",  # XY's j is x, which is ZX's height
        (2, 1): "cell j, i",
    },
    "xy_yz_zx": {  # XY, YZ, ZX
        (0, 1): "row j",  # YZ's j is y, which is XY's height
        (0, 2): "column i",  # ZX's i is x, which is XY's width
        (1, 0): "column i",  # XY's i is y, which is YZ's width
        (1, 2): "row j",  # ZX's j is z, which is YZ's height
        (2, 0): "row j",  # XY's j is x, which is ZX's height
        (2, 1): "column i",  # YZ's i is z, which is ZX's width
    },
}
CASES = [(name, *pair) for name, table in SEEN.items() for pair in table]


def one_hot(row: int, col: int) -> Tensor:
    plane = torch.zeros(1, SIZE, SIZE, 1)
    plane[0, row, col] = 1
    return plane


def spread(seen: Tensor) -> Tensor:  # [1, H, W, 1] with ones for H or W -> [H, W]
    return seen.expand(1, SIZE, SIZE, 1)[0, :, :, 0]


@pytest.mark.parametrize(("name", "plane", "other"), CASES)
def test_one_hot(name: str, plane: int, other: int) -> None:
    axes = PLANE_AXES[name]
    what, place = SEEN[name][plane, other].split(" ", 1)
    index = {"i": ROW, "j": COLUMN}
    expected = torch.zeros(SIZE, SIZE)
    if what == "row":
        expected[index[place]] = 1 / SIZE
    elif what == "column":
        expected[:, index[place]] = 1 / SIZE
    else:
        expected[COLUMN, ROW] = 1
    assert torch.equal(spread(column(one_hot(ROW, COLUMN), axes[other], axes[plane])), expected)


def points_and_cells(axes: PlaneAxes) -> tuple[Tensor, list[Tensor]]:
    """Return the centres of the box's cells [1, M, 3], and for each plane the cells that the renderer looks up [M]."""
    centres = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
    points = torch.cartesian_prod(centres, centres, centres)[None]
    numbers = torch.arange(SIZE * SIZE, dtype=torch.float32).reshape(1, 1, 1, SIZE, SIZE).expand(1, 3, 1, SIZE, SIZE)
    found = sample_planes(numbers, points, axes, box_warp=1.0)  # [1, 3, M, 1]
    return points, [cells.round().long() for cells in found[0, :, :, 0]]


@pytest.mark.parametrize(("name", "plane", "other"), CASES)
def test_it_is_the_mean_over_the_points_of_the_cell(name: str, plane: int, other: int) -> None:
    axes = PLANE_AXES[name]
    torch.manual_seed(0)
    features = torch.randn(1, 3, 1, SIZE, SIZE)
    points, cells = points_and_cells(axes)
    at_points = sample_planes(features, points, axes, box_warp=1.0)[0, other, :, 0]  # [M]
    means = torch.stack([at_points[cells[plane] == cell].mean() for cell in range(SIZE * SIZE)])
    seen = column(features[:, other].permute(0, 2, 3, 1), axes[other], axes[plane])
    torch.testing.assert_close(spread(seen), means.reshape(SIZE, SIZE))


@pytest.mark.parametrize("name", list(SEEN))
def test_the_next_plane_comes_first(name: str) -> None:
    axes = PLANE_AXES[name]
    planes = [torch.full((2, SIZE, SIZE, 5), float(plane)) for plane in range(3)]
    for p, (first, second) in enumerate(columns(planes, axes)):
        assert (first.unique().tolist(), second.unique().tolist()) == ([(p + 1) % 3], [(p + 2) % 3])
    for p, (first, second) in enumerate(same_pixels(planes)):
        assert first is planes[(p + 1) % 3] and second is planes[(p + 2) % 3]


def test_columns_are_not_spread_yet() -> None:
    planes = [torch.zeros(2, SIZE, SIZE, 5)] * 3
    for first, second in columns(planes, PLANE_AXES["xy_yz_zx"]):
        assert (first.shape, second.shape) == ((2, SIZE, 1, 5), (2, 1, SIZE, 5))  # along height, along width

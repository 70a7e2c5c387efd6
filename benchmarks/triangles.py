"""Compare rasterize with its twin on a ball of 3480 triangles that fills most of a picture.

`python -m benchmarks.ops` runs it.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Row, side_by_side
from eg3d_ops import rasterize

RINGS, COLUMNS = 30, 60


def ball(size: int) -> tuple[Tensor, Tensor]:  # [V, 3], [F, 3]
    """Return a ball on the screen, and its faces, those at the poles without area."""
    down, around = torch.linspace(0, torch.pi, RINGS), torch.arange(COLUMNS) * (2 * torch.pi / COLUMNS)
    theta, phi = torch.meshgrid(down, around, indexing="ij")
    x, y, z = theta.sin() * phi.cos(), -theta.cos(), theta.sin() * phi.sin()
    points = torch.stack([size * (0.5 + 0.45 * x), size * (0.5 + 0.45 * y), 3 + z], -1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(RINGS - 1), torch.arange(COLUMNS), indexing="ij")
    a, b = row * COLUMNS + column, row * COLUMNS + (column + 1) % COLUMNS
    quads = [torch.stack([a, a + COLUMNS, b], -1), torch.stack([b, a + COLUMNS, b + COLUMNS], -1)]
    return points, torch.cat(quads).reshape(-1, 3)


def run(device: str = "cpu", repeats: int = 5) -> list[Row]:
    rows: list[Row] = []
    for images, size in ((1, 128), (8, 128), (1, 512)):
        points, faces = ball(size)
        inputs = points.expand(images, -1, -1).contiguous().to(device), faces.to(device)
        reference, compiled = (partial(rasterize, *inputs, size, size, impl) for impl in ("reference", "compiled"))
        what = {"op": "rasterize", "case": f"{len(faces)} triangles", "shape": [images, size, size]}
        rows.append(what | side_by_side(reference, compiled, repeats, device))
    return rows

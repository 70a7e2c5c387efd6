"""Small meshes and cameras for tests."""

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose


def ball(rings: int = 24, columns: int = 40) -> tuple[Tensor, Tensor]:
    """Return a closed surface [V, 3] of radius 1 around the origin, and its faces [F, 3], outward."""
    theta = torch.linspace(0, torch.pi, rings, dtype=torch.float64)[1:-1, None]
    phi = torch.arange(columns, dtype=torch.float64)[None] * (2 * torch.pi / columns)
    middle = torch.stack([theta.sin() * phi.sin(), theta.cos().expand(-1, columns), theta.sin() * phi.cos()], -1)
    poles = torch.tensor([[0.0, 1, 0], [0.0, -1, 0]], dtype=torch.float64)
    points = torch.cat([middle.reshape(-1, 3), poles])
    faces, top, bottom = [], (rings - 2) * columns, (rings - 2) * columns + 1
    for j in range(columns):
        k = (j + 1) % columns
        faces += [[top, j, k], [bottom, (rings - 3) * columns + k, (rings - 3) * columns + j]]
        for i in range(rings - 3):
            a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
            faces += [[a, c, b], [b, c, d]]
    return points, torch.tensor(faces)


def front(count: int = 1) -> Tensor:
    """Return labels [count, 25] of views from the front."""
    return camera_label(official_pose(), intrinsics_from_fov(18.837)).expand(count, 25)

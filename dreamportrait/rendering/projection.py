"""Where points of the world appear in a picture: the inverse of `rays`."""

import torch
from torch import Tensor

from dreamportrait.rendering.cameras import check_label
from dreamportrait.rendering.rays import rays_from_label
from eg3d_ops._checks import check_shape, check_tensor


def project(points: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """points [N, M, 3], label [N, 25] -> places [N, M, 2] and distances from the camera [N, M].

    A place is (u, v): 0 .. 1 from the left and from the top edge. Points behind the camera get places that mean
    nothing and distances that are negative.
    """
    check_label(label, batch=len(points), name="label")
    check_shape("points", check_tensor("points", points), [len(label), points.shape[1], 3], "[N, M, 3]")
    matrix = label[:, :16].reshape(-1, 4, 4)
    relative = points - matrix[:, None, :3, 3]
    x, y, z = (relative @ matrix[:, :3, :3]).unbind(-1)  # [N, M] each, in the camera's axes
    fx, skew, cx, fy, cy = label[:, [16, 17, 18, 20, 21], None].unbind(1)  # [N, 1] each
    place = torch.stack([(fx * x + skew * y) / z + cx, fy * y / z + cy], -1)
    return place, relative.norm(dim=-1) * z.sign()


def points_at(depth: Tensor, label: Tensor) -> Tensor:
    """depth [N, 1, R, R] along the rays -> points [N, R * R, 3] of the world."""
    origins, directions = rays_from_label(label, depth.shape[-1])
    return origins + depth.flatten(1)[..., None] * directions

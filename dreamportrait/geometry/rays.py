"""Converts pixels to rays and points to pixels. cameras.py defines camera labels."""

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import check_label
from eg3d_ops._checks import check_int, check_shape, check_tensor


def rays_from_label(label: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Return origins and directions [N, R * R, 3] of the rays of labels [N, 25].

    There is one ray through the centre of each of the R x R pixels, row by row from the top left. Directions have
    length 1.
    """
    check_label(label, name="label")
    check_int("resolution", resolution, 1)
    cam2world = label[:, :16].reshape(-1, 4, 4)
    fx, skew, cx, fy, cy = _intrinsics(label)

    centres = (torch.arange(resolution, dtype=label.dtype, device=label.device) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")  # [R, R]: v down, u right
    y = (v.reshape(1, -1) - cy) / fy  # [N, R * R]
    x = (u.reshape(1, -1) - cx - skew * y) / fx
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [N, R * R, 3]
    # This is a broadcast product, because a GPU that allows TF32 would round a matmul to it.
    in_world = (in_camera[:, :, None] * cam2world[:, None, :3, :3]).sum(-1)
    origins = cam2world[:, None, :3, 3].expand_as(in_world)
    return origins, torch.nn.functional.normalize(in_world, dim=-1)


def project(points: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Project points [N, M, 3] to labels [N, 25]: return places [N, M, 2] and distances from the camera [N, M].

    A place is (u, v), which runs over 0 .. 1 from the left edge and from the top edge. For points behind the camera,
    distances are negative and places are meaningless.
    """
    check_label(label, batch=len(points), name="label")
    check_shape("points", check_tensor("points", points), [len(label), points.shape[1], 3], "[N, M, 3]")
    matrix = label[:, :16].reshape(-1, 4, 4)
    relative = points - matrix[:, None, :3, 3]
    x, y, z = (relative @ matrix[:, :3, :3]).unbind(-1)  # [N, M] each, in the camera's axes
    fx, skew, cx, fy, cy = _intrinsics(label)
    place = torch.stack([(fx * x + skew * y) / z + cx, fy * y / z + cy], -1)
    return place, relative.norm(dim=-1) * z.sign()


def points_at(depth: Tensor, label: Tensor) -> Tensor:
    """Return the world points [N, R * R, 3] at depth [N, 1, R, R] along the rays of labels [N, 25]."""
    origins, directions = rays_from_label(label, depth.shape[-1])
    return origins + depth.flatten(1)[..., None] * directions


def _intrinsics(label: Tensor) -> tuple[Tensor, ...]:
    """Return fx, skew, cx, fy and cy [N, 1] of labels [N, 25].

    They are slices, because an index made of a list is copied from the host, and the host waits for the copy.
    """
    return tuple(label[:, i : i + 1] for i in (16, 17, 18, 20, 21))

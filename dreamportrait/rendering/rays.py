"""One ray through every pixel of a camera; `cameras` says what a label is."""

import torch
from torch import Tensor

from dreamportrait.rendering.cameras import check_label
from eg3d_ops._checks import check_int


def rays_from_label(label: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray through the centre of each of the R x R pixels, row by row from the top left.

    label [N, 25] -> origins, directions [N, R * R, 3]; directions have length 1.
    """
    check_label(label, name="label")
    check_int("resolution", resolution, 1)
    cam2world = label[:, :16].reshape(-1, 4, 4)
    fx, skew, cx, fy, cy = label[:, [16, 17, 18, 20, 21], None].unbind(1)  # [N, 1] each

    centres = (torch.arange(resolution, dtype=label.dtype, device=label.device) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")  # [R, R]: v down, u right
    y = (v.reshape(1, -1) - cy) / fy  # [N, R * R]
    x = (u.reshape(1, -1) - cx - skew * y) / fx
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [N, R * R, 3]
    # Broadcast product, not a matmul: that would round to TF32 on a GPU told to.
    in_world = (in_camera[:, :, None] * cam2world[:, None, :3, :3]).sum(-1)
    origins = cam2world[:, None, :3, 3].expand_as(in_world)
    return origins, torch.nn.functional.normalize(in_world, dim=-1)

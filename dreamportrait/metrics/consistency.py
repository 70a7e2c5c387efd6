"""Multi-view consistency: compare the surface and the colours that two views of one portrait show."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.geometry.rays import points_at, project


class Consistency(NamedTuple):
    """Mean differences over the pixels of the first view whose surface is also visible in the second view."""

    color: Tensor  # [N] absolute difference, of colours from -1 to 1
    depth: Tensor  # [N] absolute difference, in units of the world
    seen: Tensor  # [N] share of the candidates that are visible in the second view


def reprojection_error(
    first: tuple[Tensor, Tensor, Tensor],  # image [N, 3, R, R], depth [N, 1, r, r], camera [N, 25]
    second: tuple[Tensor, Tensor, Tensor],
    nearer_than: float,  # larger depths are background, where the depth means nothing
    tolerance: float,  # a point further than this behind the second view's surface counts as hidden
) -> Consistency:
    """Project each pixel of the first view into the second view by its depth, and return the mean differences there.

    Candidates are the pixels of the surface that fall inside the second picture. Hidden ones are not compared.
    """
    (image, depth, camera), (other, other_depth, other_camera) = first, second
    size = depth.shape[-1]
    image = F.interpolate(image, (size, size), mode="area")
    place, distance = project(points_at(depth, camera), other_camera)  # [N, r * r, 2], [N, r * r]
    grid = place.unflatten(1, (size, size)) * 2 - 1  # [N, r, r, 2]
    distance = distance.reshape(depth.shape)  # [N, 1, r, r]
    found = F.grid_sample(other, grid, padding_mode="border", align_corners=False)
    found_depth = F.grid_sample(other_depth, grid, padding_mode="border", align_corners=False)
    candidate = (depth < nearer_than) & (depth > 0) & (grid.abs().amax(-1)[:, None] < 1)
    visible = candidate & ((distance - found_depth) < tolerance)

    def mean(error: Tensor) -> Tensor:  # [N, ., r, r] -> [N]
        return (error.mean(1, keepdim=True) * visible).sum((1, 2, 3)) / visible.sum((1, 2, 3)).clamp(min=1)

    seen = visible.sum((1, 2, 3)) / candidate.sum((1, 2, 3)).clamp(min=1)
    return Consistency(mean((image - found).abs()), mean((distance - found_depth).abs()), torch.nan_to_num(seen))

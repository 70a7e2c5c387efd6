"""Cameras around a portrait, by two angles in degrees."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dreamportrait.rendering.cameras import camera_label, intrinsics_from_fov, pose
from eg3d_ops._checks import check_number

FOV = 18.837  # degrees, of aligned portraits


def orbit(
    yaw: Sequence[float],  # to the right of the front, as one looks at the face
    pitch: float,  # above the horizon, between -90 and 90
    radius: float,
    pivot: tuple[float, float, float],  # what they look at
    device: torch.device | str = "cpu",
) -> Tensor:  # labels [V, 25]
    """One camera for each yaw; pitch is the true angle, not what `pose` takes."""
    if not -90 < check_number("pitch", pitch) < 90:
        raise ValueError(f"pitch={pitch}: must lie between -90 and 90 degrees, from below to above")
    turned = [math.pi / 2 + math.radians(check_number("yaw", angle)) for angle in yaw]
    height = math.pi / 2 * (1 - math.sin(math.radians(pitch)))  # the cosine of the polar angle is uniform in it
    placed = pose(torch.tensor(turned, device=device), height, radius, pivot, device)
    return camera_label(placed, intrinsics_from_fov(FOV, device))

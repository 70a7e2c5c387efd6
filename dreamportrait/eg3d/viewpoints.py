"""The cameras that the views of a portrait are asked from, checked before any work starts."""

import torch
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry.cameras import Cameras, camera_labels
from eg3d_ops._checks import check_int, check_number

YAW_RANGE = (-25.0, 25.0)  # degrees; about as far as training cameras go


def view_cameras(
    config: GeneratorConfig,
    num_views: int,  # evenly spaced over yaw_range; a single one is in its middle
    cameras: Cameras | None = None,  # in place of num_views
    yaw_range: tuple[float, float] = YAW_RANGE,  # degrees
) -> Tensor:  # [V, 25]
    """Return the labels of the cameras that views are asked from."""
    check_int("num_views", num_views, 1)
    if cameras is not None:
        if num_views != 1:
            raise ValueError(f"num_views={num_views} and cameras are given; choose one of them")
        return camera_labels(cameras)
    if not isinstance(yaw_range, tuple | list) or len(yaw_range) != 2:
        raise TypeError(f"yaw_range must be two angles in degrees, from and to, got {yaw_range!r}")
    first, last = (check_number("yaw_range", angle) for angle in yaw_range)
    angles = torch.linspace(first, last, num_views).tolist() if num_views > 1 else [(first + last) / 2]
    return config.around(angles)

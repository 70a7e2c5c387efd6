"""Checks arguments that several calls of the pipeline share, before any work starts."""

import torch
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry.cameras import Cameras, camera_labels
from dreamportrait.systems.dreamportrait.generator import MAX_STRENGTH
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


def check_shares(truncation: float, strength: float) -> None:
    if not 0 <= check_number("truncation", truncation) <= 1:
        raise ValueError(f"truncation={truncation}: must be within 0 .. 1, from the average face to full variety")
    if not 0 <= check_number("strength", strength) <= MAX_STRENGTH:
        raise ValueError(
            f"strength={strength}: must be within 0 .. {MAX_STRENGTH}; 0 ignores the text, 1 is as trained, and beyond "
            f"{MAX_STRENGTH} faces fall apart"
        )

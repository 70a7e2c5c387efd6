"""Prompts that name the side a head is seen from, so that a diffusion model does not guide its back towards a face.

The azimuth is the angle of the camera's position around the head's vertical axis: 0 in front, 90 degrees at the ears.
"""

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import check_label

VIEWS = ("front view", "side view", "back view")
FRONT, BACK = 45.0, 135.0  # degrees of azimuth; front and back are a quarter of the circle each


def azimuth(camera: Tensor) -> Tensor:  # [N, 25] -> [N], degrees from 0 to 180
    """Return the azimuth of each camera. It is 0 straight above and below the head."""
    position = check_label(camera)[:, :16].reshape(-1, 4, 4)[:, :3, 3]  # the face looks along z
    return torch.rad2deg(torch.atan2(position[:, 0].abs(), position[:, 2]))


def views(camera: Tensor) -> list[str]:  # [N, 25] -> N of VIEWS
    return [VIEWS[(angle > FRONT) + (angle > BACK)] for angle in azimuth(camera).tolist()]


def with_views(prompts: list[str], camera: Tensor) -> list[str]:
    """Append the view of its camera to each prompt. The empty prompt, which means no text, stays empty."""
    if len(prompts) != len(camera):
        raise ValueError(f"{len(prompts)} prompts and {len(camera)} cameras: give one camera for each prompt")
    pairs = zip(prompts, views(camera), strict=True)
    return [f"{prompt.rstrip(' .,;')}, {view}" if prompt.strip() else prompt for prompt, view in pairs]

"""What surrounds a head while it is tuned: cameras and backgrounds that the diffusion model knows."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import FOV, camera_label, intrinsics_from_fov, official_pose
from dreamportrait.miniworld.heads import BACKGROUND
from dreamportrait.miniworld.world import PITCH, RADIUS, YAW

# The miniature diffusion model has seen no other views and walls than those of its world.


class Scene(NamedTuple):
    cameras: Tensor  # [N, 25]
    backgrounds: Tensor  # [N, 3] in 0 .. 1


def random_scene(count: int, generator: torch.Generator) -> Scene:
    """Draw views around the front as the miniature world does, each before one of its seven walls."""
    yaw, pitch = (torch.rand(2, count, generator=generator) * 2 - 1) * torch.tensor([[YAW], [PITCH]])
    poses = official_pose(math.pi / 2 + yaw, math.pi / 2 + pitch, RADIUS)
    walls = torch.tensor(list(BACKGROUND.values())) / 255
    chosen = walls[torch.randint(len(walls), (count,), generator=generator)]
    return Scene(camera_label(poses, intrinsics_from_fov(FOV)), chosen)

"""What surrounds a head while it is tuned: cameras and backgrounds that the diffusion model knows."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import FOV, camera_label, intrinsics_from_fov, official_pose
from dreamportrait.miniworld.heads import BACKGROUND
from dreamportrait.miniworld.world import PITCH, RADIUS, YAW

Surroundings = Literal["miniworld", "wide"]
WIDE_YAW, WIDE_PITCH = math.radians(90), math.radians(5)


class Scene(NamedTuple):
    cameras: Tensor  # [N, 25]
    backgrounds: Tensor  # [N, 3] in 0 .. 1


def reach(kind: Surroundings) -> tuple[float, float]:
    """Return the largest yaw and pitch of views to both sides of the front, in radians."""
    return (YAW, PITCH) if kind == "miniworld" else (WIDE_YAW, WIDE_PITCH)


def random_scene(count: int, generator: torch.Generator, kind: Surroundings = "miniworld") -> Scene:
    """Draw views around the front.

    miniworld: as its pictures are taken, each before one of its seven walls, because the miniature diffusion model has
    seen no others. wide: from all sides but the back, before walls of any colour.
    """
    sideways, upwards = reach(kind)
    yaw, pitch = (torch.rand(2, count, generator=generator) * 2 - 1) * torch.tensor([[sideways], [upwards]])
    poses = official_pose(math.pi / 2 + yaw, math.pi / 2 + pitch, RADIUS)
    if kind == "miniworld":
        walls = torch.tensor(list(BACKGROUND.values())) / 255
        chosen = walls[torch.randint(len(walls), (count,), generator=generator)]
    else:
        chosen = torch.rand(count, 3, generator=generator)
    return Scene(camera_label(poses, intrinsics_from_fov(FOV)), chosen)

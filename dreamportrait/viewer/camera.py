"""Turns the browser's camera into camera labels.

viser and this project describe poses alike: camera to world, x to the right, y down, z forward, and the world's up is
+y (`set_up_direction("+y")`). They differ in zoom: in the browser, the wheel moves the camera closer. The generator's
training cameras lie on a sphere around the origin and look at the pivot, so its camera stays on that sphere and the
picture is enlarged instead.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry.cameras import FOV, camera_label, intrinsics_from_fov
from dreamportrait.geometry.cameras import look_at as pose_matrix

STEEPEST = 85.0  # degrees of pitch; at 90, up is undefined
ZOOM = (0.5, 4.0)
FURTHEST = 0.5  # of the box; how far panning moves the camera

Vector = tuple[float, float, float]


class Pose(NamedTuple):
    """The browser's camera around the head."""

    yaw: float = 0.0  # degrees, see geometry/cameras.py
    pitch: float = 0.0
    zoom: float = 1.0  # 2 = twice as large
    offset: Vector = (0.0, 0.0, 0.0)  # of the point it looks at from the pivot


def pose_of(position: Vector, look_at: Vector, config: GeneratorConfig) -> Pose:
    """Return the pose of a browser's camera. A camera in its own target, or anywhere infinite, is at the front."""
    x, y, z = (a - b for a, b in zip(position, look_at, strict=True))
    distance = math.sqrt(x * x + y * y + z * z)
    if not (1e-6 < distance < 1e6 and all(math.isfinite(each) for each in look_at)):
        return Pose()
    yaw, pitch = math.degrees(math.atan2(x, z)), math.degrees(math.atan2(y, math.hypot(x, z)))
    zoom = min(max(_distance(_direction(yaw, pitch), config) / distance, ZOOM[0]), ZOOM[1])
    edge = FURTHEST * config.box_warp
    right, up, front = (min(max(float(a - b), -edge), edge) for a, b in zip(look_at, config.camera_pivot, strict=True))
    return Pose(yaw, min(max(pitch, -STEEPEST), STEEPEST), zoom, (right, up, front))


def label_of(pose: Pose, config: GeneratorConfig) -> Tensor:  # [1, 25]
    """Return the label of the generator's camera for a pose."""
    direction, pivot = _direction(pose.yaw, pose.pitch), torch.tensor(config.camera_pivot)
    target = pivot + torch.tensor(pose.offset)
    position = target + _distance(direction, config) * direction
    label = camera_label(pose_matrix(position[None], target), intrinsics_from_fov(FOV))
    label[:, [16, 20]] *= pose.zoom
    return label


def _direction(yaw: float, pitch: float) -> Tensor:  # [3]
    """Return the unit vector from the pivot to a camera."""
    a, b = math.radians(yaw), math.radians(pitch)
    return torch.tensor([math.sin(a) * math.cos(b), math.sin(b), math.cos(a) * math.cos(b)])


def _distance(direction: Tensor, config: GeneratorConfig) -> float:
    """Return the distance from the pivot to the sphere of the training cameras."""
    pivot = torch.tensor(config.camera_pivot)
    along = float(pivot @ direction)
    return math.sqrt(along**2 - float(pivot @ pivot) + config.camera_radius**2) - along


def within(pose: Pose, yaw: float, pitch: float) -> Pose:
    """Return the pose with its angles limited to `yaw` and `pitch` degrees on either side of the front."""
    return pose._replace(yaw=min(max(pose.yaw, -yaw), yaw), pitch=min(max(pose.pitch, -pitch), pitch))


def front(config: GeneratorConfig) -> Vector:
    """Return the position of the camera before the face."""
    x, y, z = label_of(Pose(), config)[0, [3, 7, 11]].tolist()
    return x, y, z


def window_fov(aspect: float) -> float:
    """Return the vertical field of view, in radians, of a window of this aspect (width / height).

    The largest square in the middle of the window then shows what a training picture shows.
    """
    focal = float(intrinsics_from_fov(FOV)[0, 0])
    return 2 * math.atan(0.5 / focal / min(1.0, aspect))

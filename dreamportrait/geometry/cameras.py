"""Cameras: their labels and convention, orbits around a head, intrinsics.

A camera is a label of 25 numbers: the camera-to-world matrix (4 x 4, row-major), then the intrinsics (3 x 3,
row-major) divided by the image size. The columns of the matrix are the camera's x (right in the image), y (down) and z
(viewing direction) axes and its position, in a world with y up: the OpenCV convention.

Angles follow `orbit`: degrees, yaw 0 and pitch 0 at the front, positive to the right and above. Only `official_pose`,
`camera_position` and `random_angles` use the angles of EG3D's training cameras: radians, pi/2 and pi/2 at the front,
and the cosine of the polar angle is linear in pitch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from eg3d_ops._checks import check_number, check_shape, check_tensor

FOV = 18.837  # degrees; the field of view of aligned portraits
ROTATION_TOLERANCE = 1e-3  # largest allowed entry of R R^T - I; poses estimated from photographs reach 1e-5

Cameras = Tensor | Array | Sequence[float] | Sequence[Sequence[float]]  # one label of 25 numbers, or several


def orbit(
    yaw: Sequence[float],  # degrees to the right of the front, for a viewer who looks at the face
    pitch: float,  # degrees above the horizon, between -90 and 90
    radius: float,
    pivot: tuple[float, float, float],  # the point that the cameras look at
    device: torch.device | str = "cpu",
) -> Tensor:  # labels [V, 25]
    """Return one camera for each yaw. The angles are true angles, unlike those of `official_pose`."""
    if not -90 < check_number("pitch", pitch) < 90:
        raise ValueError(f"pitch={pitch}: must lie between -90 and 90 degrees, from below to above")
    turned = [math.pi / 2 + math.radians(check_number("yaw", angle)) for angle in yaw]
    height = math.pi / 2 * (1 - math.sin(math.radians(pitch)))  # the cosine of the polar angle is linear in it
    placed = official_pose(torch.tensor(turned, device=device), height, radius, pivot, device)
    return camera_label(placed, intrinsics_from_fov(FOV, device))


def look_at(position: Tensor, target: Tensor) -> Tensor:
    """Return upright camera-to-world matrices [N, 4, 4] at `position` [N, 3], looking at `target` [3] or [N, 3]."""

    def unit(v: Tensor) -> Tensor:
        return v / v.norm(dim=-1, keepdim=True)

    forward = unit(target - position)
    up = torch.tensor([0.0, 1.0, 0.0], device=position.device, dtype=position.dtype).expand_as(forward)
    right = -unit(torch.linalg.cross(up, forward))
    down = unit(torch.linalg.cross(forward, right))
    matrix = torch.eye(4, device=position.device, dtype=position.dtype).repeat(len(position), 1, 1)
    matrix[:, :3] = torch.stack([right, down, forward, position], -1)
    return matrix


def camera_position(yaw: Tensor, pitch: Tensor, radius: float) -> Tensor:
    """Return positions [N, 3] on a sphere around the origin, for angles [N] as in `official_pose`."""
    pitch = pitch.clamp(1e-5, math.pi - 1e-5)
    polar = torch.arccos(1 - 2 * (pitch / math.pi))
    x = torch.sin(polar) * torch.cos(math.pi - yaw)
    z = torch.sin(polar) * torch.sin(math.pi - yaw)
    return radius * torch.stack([x, torch.cos(polar), z], -1)


def official_pose(
    yaw: float | Tensor = math.pi / 2,
    pitch: float | Tensor = math.pi / 2,
    radius: float = 2.7,
    target: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return camera-to-world matrices [N, 4, 4] on a sphere, for the angles of EG3D's training cameras, each [N]."""
    if check_number("radius", radius) <= 0:
        raise ValueError(f"radius must be positive, got {radius}")
    angles = (torch.as_tensor(angle, dtype=torch.float32, device=device).reshape(-1) for angle in (yaw, pitch))
    yaws, pitches = torch.broadcast_tensors(*angles)
    position = camera_position(yaws, pitches, radius)
    return look_at(position, torch.as_tensor(target, dtype=torch.float32, device=device))


def random_angles(
    count: int,
    mean: float,
    spread: float,
    distribution: str = "normal",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw angles [count] for `official_pose`: normal with standard deviation `spread`, or uniform over +- `spread`."""
    if distribution == "normal":
        return torch.randn(count, generator=generator, device=device) * spread + mean
    if distribution == "uniform":
        return (torch.rand(count, generator=generator, device=device) * 2 - 1) * spread + mean
    raise ValueError(f"distribution={distribution!r}: must be 'normal' or 'uniform'")


def intrinsics_from_fov(degrees: float, device: torch.device | str = "cpu") -> Tensor:
    """Return normalised intrinsics [3, 3] of a diagonal field of view.

    The cameras of the released models were made with 3.14159 and 1.414 instead of pi and the square root of 2, so
    these numbers are used here too.
    """
    if not 0 < check_number("degrees", degrees) < 180:
        raise ValueError(f"degrees must lie between 0 and 180, got {degrees}")
    focal = 1 / (math.tan(degrees * 3.14159 / 360) * 1.414)
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], device=device)


def camera_label(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """Join poses [N, 4, 4] and intrinsics [3, 3] or [N, 3, 3] to labels [N, 25]."""
    check_shape("cam2world", check_tensor("cam2world", cam2world), [len(cam2world), 4, 4], "[N, 4, 4]")
    intrinsics = intrinsics.expand(len(cam2world), 3, 3)
    return torch.cat([cam2world.flatten(1), intrinsics.flatten(1)], 1)


def check_label(label: Tensor, batch: int | None = None, name: str = "camera") -> Tensor:
    """Raise an error unless `label` has shape [N, 25], with N = `batch` if given; return it."""
    check_tensor(name, label, 2, "[N, 25]")
    if label.shape[1] != 25:
        raise ValueError(f"{name} must have 25 numbers per row (16 pose, 9 intrinsics), got shape {list(label.shape)}")
    if batch is not None and len(label) != batch:
        raise ValueError(f"{name} must have one row per sample, {batch}, got shape {list(label.shape)}")
    return label


def check_camera(label: Tensor, batch: int | None = None) -> Tensor:
    """Raise ValueError unless labels have rigid poses and normalised intrinsics; return them.

    Values on a GPU are not checked, because the check would wait for the device. Data is checked when it is loaded.
    """
    check_label(label, batch)
    if label.device.type != "cpu" or torch.compiler.is_compiling():
        return label
    matrix, k = label.detach()[:, :16].reshape(-1, 4, 4), label.detach()[:, 16:].reshape(-1, 3, 3)
    rotation = matrix[:, :3, :3]
    off = (rotation @ rotation.mT - torch.eye(3, dtype=label.dtype)).abs().amax((1, 2))
    bottom = (matrix[:, 3] - label.new_tensor([0, 0, 0, 1])).abs().amax(1)
    # The conditions are written so that NaN fails them.
    _reject(
        ~((off < ROTATION_TOLERANCE) & (rotation.det() > 0)), label, "the pose must be a rotation with determinant 1"
    )
    _reject(~(bottom < ROTATION_TOLERANCE), label, "the last row of the pose must be 0 0 0 1")
    _reject(~((k[:, 0, 0] > 0) & (k[:, 1, 1] > 0)), label, "focal lengths must be positive")
    centres = torch.stack([k[:, 0, 2], k[:, 1, 2]], 1)
    _reject(
        ~((centres > 0) & (centres < 1)).all(1),
        label,
        "the principal point must lie between 0 and 1: divide intrinsics by the image size",
    )
    return label


def _reject(bad: Tensor, label: Tensor, rule: str) -> None:
    if bad.any():
        row = int(bad.nonzero()[0])
        values = ", ".join(f"{value:.4g}" for value in label[row].tolist())
        raise ValueError(f"camera {row} of {len(label)}: {rule}; got [{values}]")


def camera_labels(cameras: Cameras) -> Tensor:  # [V, 25]
    """Convert one or several labels to a checked tensor."""
    try:
        given = cameras.detach().cpu() if isinstance(cameras, Tensor) else torch.from_numpy(np.array(cameras, float))
    except (TypeError, ValueError):
        raise TypeError(f"cameras must be labels of 25 numbers, [25] or [V, 25], got {cameras!r}") from None
    labels = given.float()[None] if given.ndim == 1 else given.float()
    if labels.ndim != 2 or not len(labels):
        raise ValueError(f"cameras must be [25] or [V, 25] with at least one row, got shape {list(given.shape)}")
    return check_camera(labels)

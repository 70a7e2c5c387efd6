"""Heads kept in memory as tri-planes, which can be rendered from any camera.

A camera far from those of the training, or a resolution that cannot be seen in the picture, gives a warning in the log,
once in a process for each kind.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.geometry.cameras import FOV
from dreamportrait.geometry.views import Views
from eg3d_ops._checks import check_int

PHOTOGRAPHS = (30.0, 10.0)  # degrees of yaw and pitch; assumed for weights that do not know their training cameras
TOLERANCE = 5.0  # degrees beyond the training cameras that still look right
WIDEST = 1.2 * FOV  # degrees; wider pictures show what lies outside the planes
MAX_RESOLUTION = 1024  # rays a side; more would need gigabytes for nothing

_log = logging.getLogger(__name__)
_said: set[str] = set()  # kinds of warnings that this process has logged


@dataclass(frozen=True, eq=False)
class Planes:
    """N heads as tri-planes. Rendering a view does not run the backbone again."""

    generator: TriPlaneGenerator  # renders the views
    planes: Tensor  # [N, 3, C, H, W]
    ws: Tensor  # [N, num_ws, w_dim]; super-resolution reads it

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, index: int) -> "Planes":
        """Return one of the heads."""
        return Planes(self.generator, self.planes[index][None], self.ws[index][None])

    def __iter__(self) -> Iterator["Planes"]:
        return (self[i] for i in range(len(self)))

    def view(self, camera: Tensor, resolution: int | None = None) -> Rendering:  # [N, 25]
        """Render each head from its own camera. resolution: before super-resolution; None = the generator's."""
        return self.generator.render(self.planes, camera.to(self.planes.device), w=self.ws, resolution=resolution)

    @torch.no_grad()
    def views(self, cameras: Tensor, resolution: int | None = None) -> list[Views]:  # [V, 25]
        """Render all heads from the same V cameras, one camera after the other. Return the views of each head."""
        for kind, note in view_notes(self.generator, cameras, resolution).items():
            if kind not in _said:
                _said.add(kind)
                _log.warning(note)
        cameras = cameras.to(self.planes.device)
        seen = [self.view(camera.expand(len(self), -1), resolution) for camera in cameras]
        colors = torch.stack([view.image.float() for view in seen], 1)  # [N, V, 3, R, R]
        depth, opacity = (torch.stack(parts, 1) for parts in zip(*((v.depth, v.weights) for v in seen), strict=True))
        return [Views(cameras, *parts) for parts in zip(colors, depth, opacity, strict=True)]


def trained_angles(generator: TriPlaneGenerator) -> tuple[float, float]:
    """Return how many degrees of yaw and of pitch the training cameras reached, on either side of the front.

    They follow from the standard deviation of the camera labels: uniform angles reach sqrt(3) deviations, and 92 % of
    normally distributed ones lie within them.
    """
    deviations = generator.dataset_label_std.cpu()[[3, 7]].tolist()  # of the camera's position, to the side and up
    if not all(deviations):
        return PHOTOGRAPHS
    sines = [math.sqrt(3) * deviation / generator.config.camera_radius for deviation in deviations]
    yaw = math.degrees(math.asin(sines[0])) if sines[0] < 1 else 180.0  # 1 and more: cameras all around
    return yaw, math.degrees(math.asin(min(sines[1], 1.0)))


def camera_angles(cameras: Tensor, pivot: tuple[float, float, float]) -> Tensor:  # [V, 25] -> [V, 2]
    """Return yaw and pitch of cameras in degrees, as `orbit` takes them."""
    x, y, z = (cameras[:, [3, 7, 11]] - cameras.new_tensor(pivot)).unbind(1)
    return torch.rad2deg(torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], 1))


def view_notes(generator: TriPlaneGenerator, cameras: Tensor, resolution: int | None = None) -> dict[str, str]:
    """Return what a user should know about views from these cameras [V, 25], by kind: yaw, pitch, fov, resolution."""
    cameras, notes = cameras.detach().cpu(), {}
    angles = camera_angles(cameras, generator.config.camera_pivot)
    sides = {"yaw": ("right", "left"), "pitch": ("above", "below")}
    for (kind, (over, under)), asked, limit in zip(
        sides.items(), angles.unbind(1), trained_angles(generator), strict=True
    ):
        furthest = float(asked[asked.abs().argmax()])
        if abs(furthest) > limit + TOLERANCE:
            side = over if furthest > 0 else under
            notes[kind] = (
                f"{kind}={furthest:.0f}, a view from {abs(furthest):.0f} degrees {side}: this model was trained on "
                f"views up to about {limit:.0f} degrees {over} or {under}; further out, holes and ghosts appear"
            )
    if (widest := float(fields_of_view(cameras).max())) > WIDEST:
        notes["fov"] = (
            f"fov={widest:.0f}: pictures wider than {WIDEST:.0f} degrees show what lies outside the head's planes; "
            f"training pictures have {FOV:.0f}"
        )
    return notes | _resolution_notes(generator, resolution)


def fields_of_view(cameras: Tensor) -> Tensor:  # [V, 25] -> [V]
    """Return diagonal fields of view in degrees; the inverse of `intrinsics_from_fov`."""
    return 2 * torch.rad2deg(torch.atan(1 / (1.414 * cameras[:, 16])))


def _resolution_notes(generator: TriPlaneGenerator, resolution: int | None) -> dict[str, str]:
    spec = generator.config.superresolution
    if resolution is None:
        return {}
    if check_int("resolution", resolution, 1) > MAX_RESOLUTION:
        raise ValueError(f"resolution={resolution}: must be at most {MAX_RESOLUTION} rays a side")
    if resolution <= spec.input_resolution or not spec.resize_larger:
        return {}
    size = generator.config.image_resolution
    return {
        "resolution": f"resolution={resolution} counts rays, before super-resolution: this model uses at most "
        f"{spec.input_resolution}, and its pictures stay {size} x {size}; more rays take time and add no detail"
    }

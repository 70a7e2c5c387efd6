"""Cameras and their rays; the renderer itself is `eg3d_ops.render_rays`."""

from dreamportrait.rendering.cameras import (
    camera_label,
    check_camera,
    intrinsics_from_fov,
    look_at,
    pose,
    random_angles,
)
from dreamportrait.rendering.rays import rays_from_label

__all__ = [
    "camera_label",
    "check_camera",
    "intrinsics_from_fov",
    "look_at",
    "pose",
    "random_angles",
    "rays_from_label",
]

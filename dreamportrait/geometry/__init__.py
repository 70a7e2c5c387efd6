"""Cameras, rays, views of a head, and pictures as tensors.

The public convention of angles is that of `orbit`: degrees, 0 at the front, positive to the right and upwards.
"""

from dreamportrait.geometry.cameras import camera_label, check_camera, intrinsics_from_fov, look_at, orbit
from dreamportrait.geometry.rays import rays_from_label

__all__ = ["camera_label", "check_camera", "intrinsics_from_fov", "look_at", "orbit", "rays_from_label"]

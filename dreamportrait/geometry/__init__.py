"""Cameras, rays, views of a head, and pictures as tensors.

Public functions take angles as `orbit` does: degrees, 0 at the front, positive to the right and upwards.
"""

from dreamportrait.geometry.cameras import camera_label, check_camera, intrinsics_from_fov, look_at, orbit
from dreamportrait.geometry.rays import rays_from_label

__all__ = ["camera_label", "check_camera", "intrinsics_from_fov", "look_at", "orbit", "rays_from_label"]

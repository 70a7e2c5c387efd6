"""Draws what a session shows: pictures, depth or normals, quickly while the camera moves and in full when it rests."""

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.sheets import depth_to_images, enlarged
from dreamportrait.geometry.images import to_bytes
from dreamportrait.geometry.rays import points_at, rays_from_label

KINDS = ("Picture", "Depth", "Normals")
BACKGROUND = (32, 34, 38)  # beside the picture
PREVIEW = 64  # rays a side that drafts have at least, where the model has as many
SHARP = 512  # pixels; a picture at rest is enlarged to about this, more smoothly than browsers do it


class Drawing(NamedTuple):
    colors: Tensor  # [1, 3, R, R] in -1 .. 1
    depth: Tensor  # [1, 1, r, r] along the ray


@torch.no_grad()
def draft(head: Planes, label: Tensor) -> Drawing:  # [1, 25]
    """Draw with a quarter of the rays, but at least 64 a side, and without super-resolution."""
    generator = head.generator
    most = generator.config.render_resolution
    size = min(max(most // 2, PREVIEW), most)
    rays = generator.render_rays(head.planes, *rays_from_label(label.to(head.planes.device), size))
    colors, depth = (rearrange(part, "n (h w) c -> n c h w", h=size) for part in (rays.features[..., :3], rays.depth))
    return Drawing(colors.float(), depth.float())


@torch.no_grad()
def full(head: Planes, label: Tensor) -> Drawing:  # [1, 25]
    view = head.view(label)
    return Drawing(view.image.float(), view.depth.float())


def pixels_of(drawing: Drawing, kind: str, label: Tensor, depth_range: tuple[float, float]) -> Array:  # [R, R, 3]
    if kind == "Depth":
        near, far = depth_range
        return to_bytes(depth_to_images(drawing.depth, near, max(far, near + 1e-6)))[0]
    if kind == "Normals":
        return to_bytes(normals(drawing.depth, label))[0]
    return to_bytes(drawing.colors)[0]


def normals(depth: Tensor, label: Tensor) -> Tensor:  # [1, 1, R, R], [1, 25] -> [1, 3, R, R]
    """Return normals of the surface at this depth, in -1 .. 1: right, up and towards the camera are positive."""
    points = rearrange(points_at(depth, label.to(depth)), "n (h w) c -> n c h w", h=depth.shape[-1])
    across, along = (torch.gradient(points, dim=axis)[0] for axis in (3, 2))
    world = torch.nn.functional.normalize(torch.linalg.cross(along, across, dim=1), dim=1)
    to_camera = label.to(depth)[:, :16].reshape(-1, 4, 4)[:, :3, :3].mT
    right, down, forward = torch.einsum("nij,njhw->nihw", to_camera, world).unbind(1)
    return torch.stack([right, -down, -forward], 1)


def letterboxed(pixels: Array, aspect: float, size: int | None = None) -> Array:  # [R, R, 3] -> [H, W, 3]
    """Put a square picture in the middle of a window of this aspect. size: of the square. None = as it is.

    The browser stretches the result over its window.
    """
    picture = enlarged(Image.fromarray(pixels), size or len(pixels))
    aspect = min(max(aspect, 0.2), 5.0)
    width, height = round(picture.width * max(aspect, 1.0)), round(picture.height / min(aspect, 1.0))
    window = Image.new("RGB", (width, height), BACKGROUND)
    window.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return np.asarray(window)

"""The solid that a mesh is the surface of, as a field on a grid: positive inside, negative outside.

The solid is where

    density(x) > level                the level is chosen from the density itself, see `find_level`
    hull(x) > 0                       no view shows background there: removes the wall and floating ghosts
    cap(x) > 0                        behind the plane `back`, which no view shows: a rounded back of the head

and its field is the smallest of the three.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh_views import HeadViews
from dreamportrait.geometry.rays import project, rays_from_label
from eg3d_ops import bias_act

COARSE = 64  # samples along an edge of the box, for everything but the density of the final surface
SLACK = 1.5  # pixels that the hull is wider than the masks, so that the density decides where it can
LEVELS = 40  # candidates between 1/500 and 1/2 of the largest density
BULGE = 0.6  # depth of the rounded back, in units of the inner radius of the cut


class Axes(NamedTuple):
    """Coordinates of the samples of a grid along each axis of the world."""

    x: Tensor  # [X]
    y: Tensor  # [Y]
    z: Tensor  # [Z]

    def points(self) -> Tensor:  # [Z, Y, X, 3]
        z, y, x = torch.meshgrid(self.z, self.y, self.x, indexing="ij")
        return torch.stack([x, y, z], -1)


@dataclass(frozen=True, eq=False)
class Solid:
    field: Array  # [Z, Y, X]
    axes: Axes
    level: float  # density at the surface


def box_axis(box: float, count: int) -> Tensor:
    """Return the centres of `count` equal parts of the box's edge."""
    return ((torch.arange(count) + 0.5) / count - 0.5) * box


@torch.no_grad()
def density_on_grid(head: Planes, axes: Axes) -> Tensor:  # [Z, Y, X]
    """Return the density per unit of length, slice by slice.

    Planes are aligned with the grid and the decoder's first layer is linear. So it acts once on each plane, and each
    sample only adds its results: about ten times faster than looking up each sample.
    """
    generator, device = head.generator, head.planes.device
    c, decoder = generator.config, generator.decoder.weights()
    parts = []
    for plane, (across, up) in zip(head.planes[0], c.axes, strict=True):
        u, v = (axes[axis].to(device) * (2 / c.box_warp) for axis in (across, up))
        grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)  # [v, u, 2]
        features = F.grid_sample(plane[None].float(), grid[None], padding_mode="zeros", align_corners=False)[0]
        hidden = torch.einsum("hc,cvu->hvu", decoder.w1, features) / len(c.axes)
        parts.append(_along_world(hidden, across, up))
    shared = sum((part for part in parts if part.shape[1] == 1), decoder.b1[:, None, None, None])  # by all slices
    others = [part for part in parts if part.shape[1] != 1]
    w, b = decoder.w2[0], decoder.b2[0]
    slices = []
    for k in range(len(axes.z)):
        hidden = sum((part[None, :, k] for part in others), shared[None, :, 0])  # [1, h, Y, X]
        slices.append(torch.einsum("h,hyx->yx", w, bias_act(hidden, act="softplus")[0]) + b)
    return F.softplus(torch.stack(slices) - 1).cpu()


def _along_world(hidden: Tensor, across: int, up: int) -> Tensor:
    """Return the values [h, v, u] of a plane as [h, Z, Y, X], with size 1 along the axis that it does not span."""
    missing = 3 - across - up
    order = sorted((across, up), reverse=True)  # z before y before x
    if order != [up, across]:
        hidden = hidden.mT
    return hidden.unsqueeze(1 + (2 - missing))


def make_solid(head: Planes, views: HeadViews, resolution: int, level: float | None) -> Solid:
    """Return the solid on a grid of `resolution` samples along the box, cropped to what it needs."""
    box = head.generator.config.box_warp
    coarse = Axes(*[box_axis(box, COARSE)] * 3)
    density, hull = density_on_grid(head, coarse), _hull(views, coarse, box)
    if level is None:
        judged = hull > 0 if views.back is None else (hull > 0) & (coarse.z[:, None, None] >= views.back)
        level = find_level(torch.where(judged, density, 0.0), views, box)
    field = _join(density, hull, level, coarse, views.back)
    if not (field > 0).any():
        largest = float(density[hull > 0].max()) if (hull > 0).any() else 0.0
        raise ValueError(
            f"level={level:.4g}: no point of this head is denser, its largest density is {largest:.4g}; give a smaller "
            "level, or none to have it chosen"
        )
    axes = _crop(field, box, resolution)
    places = axes.points()[None] * (2 / box)
    hull = F.grid_sample(hull[None, None], places, padding_mode="border", align_corners=False)[0, 0]
    field = _join(density_on_grid(head, axes), hull, level, axes, views.back)
    return Solid(field.numpy(), axes, level)


def find_level(density: Tensor, views: HeadViews, box: float) -> float:
    """Return the level whose surface has the silhouettes that the views' opacity has; of equals the highest.

    density [Z, Y, X] on a coarse grid, 0 outside the hull. The silhouette of a level is where the largest density along
    a ray exceeds it, so all levels are compared without making a surface.
    """
    radius, size, largest = math.sqrt(3) / 2 * box, views.opacity.shape[-1], []
    for camera in views.cameras:
        origins, directions = rays_from_label(camera[None], size)
        middle = float(origins[0, 0].norm())
        steps = torch.linspace(max(middle - radius, 0), middle + radius, 2 * COARSE)
        some = directions[0].reshape(size, size, 1, 3)[::2, ::2]  # every other pixel of every other row is enough
        points = (origins[0, 0] + steps[:, None] * some).flatten(0, 1)  # [M, S, 3]
        largest.append(F.grid_sample(density[None, None], points[None, None] * (2 / box), align_corners=False).amax(-1))
    along, top = torch.cat(largest).flatten(), float(density.max())  # [V * M]
    wanted = torch.from_numpy(views.masks[:, ::2, ::2]).flatten()
    levels = np.geomspace(top / 500, top / 2, LEVELS)
    shares = [float(((along > each) & wanted).sum() / ((along > each) | wanted).sum()) for each in levels]
    return float(max(each for each, share in zip(levels, shares, strict=True) if share == max(shares)))


def _hull(views: HeadViews, axes: Axes, box: float) -> Tensor:  # [Z, Y, X], a length
    """Return how deep points lie inside all masks and in the space of the head.

    A picture does not judge points beyond its left, right and upper edge. Below it, the bust goes on as in the lowest
    row, down to where the last picture ends.
    """
    points = axes.points()
    flat = points.reshape(1, -1, 3)
    inside, below = torch.full((2, flat.shape[1]), box)
    for camera, mask in zip(views.cameras, views.masks, strict=True):
        half = float(camera[[3, 7, 11]].norm() / camera[20]) / 2  # of the picture's height, where the head is
        place = project(flat, camera[None])[0][0] * 2 - 1  # [M, 2]
        depth = torch.from_numpy(signed_distance(mask) + SLACK).float() * (2 * half / mask.shape[-1])
        depth = F.grid_sample(depth[None, None], place[None, None], padding_mode="border", align_corners=False)[0, 0, 0]
        judged = (place[:, 0].abs() < 1) & (place[:, 1] > -1)
        inside = torch.minimum(inside, depth.where(judged, box))
        below = torch.minimum(below, (place[:, 1] - 1) * half)
    space = views.space if views.back is None else views.space[:-1]  # behind the head, the cap takes the hull's place
    inside = torch.minimum(inside, (flat[0] @ space[:, :3].mT + space[:, 3]).amin(1))
    return torch.minimum(inside, -below).reshape(points.shape[:-1])


def signed_distance(mask: Array) -> Array:
    """Return the distance to the edge of a mask in pixels: positive inside, negative outside."""
    if mask.all() or not mask.any():
        return np.where(mask, np.inf, -np.inf).clip(-mask.shape[-1], mask.shape[-1])
    return np.where(mask, ndimage.distance_transform_edt(mask) - 0.5, 0.5 - ndimage.distance_transform_edt(~mask))


def _join(density: Tensor, hull: Tensor, level: float, axes: Axes, back: float | None) -> Tensor:
    """Return the smallest of the three fields, all as lengths."""
    pitch = float(axes.x[1] - axes.x[0])
    # The logarithm of the density falls almost linearly at a surface, by about 1 for each step of the finest grid.
    field = torch.minimum(torch.log(density.clamp_min(1e-12) / level) * pitch, hull)
    if back is None:
        return field
    behind = int((axes.z < back).sum())
    section = field[min(behind, len(axes.z) - 1)]  # [Y, X] the foremost slice that is seen
    cap = _cap(section, pitch)
    return torch.cat(
        [torch.minimum(axes.z[:behind, None, None] - back + cap, section.clamp_max(pitch)), field[behind:]]
    )


def _cap(section: Tensor, pitch: float) -> Tensor:  # [Y, X]
    """Return how far the solid goes on behind its cut: a rounded back, deepest where the cut is widest."""
    mask = (section > 0).numpy()
    if not mask.any():
        return torch.zeros_like(section)
    inner = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask) * pitch, 0.02 / pitch)
    radius = inner.max()
    return torch.from_numpy(BULGE * radius * (1 - (1 - inner / radius) ** 2) ** 0.7).float()


def _crop(field: Tensor, box: float, resolution: int) -> Axes:
    """Return the axes of the fine grid around the part of the coarse one that is inside."""
    fine, margin = box_axis(box, resolution), 2 * box / COARSE
    coarse, found = box_axis(box, COARSE), []
    for axis in (2, 1, 0):  # x, y, z
        used = (field > 0).any(dim=tuple({0, 1, 2} - {axis})).nonzero().flatten()
        first, last = float(coarse[used[0]]) - margin, float(coarse[used[-1]]) + margin
        found.append(fine[(fine >= first) & (fine <= last)])
    return Axes(*found)

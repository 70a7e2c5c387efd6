"""Colours of a mesh, mixed from the pictures of several views."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from dreamportrait.export.mesh_field import signed_distance
from dreamportrait.export.mesh_unwrap import Atlas
from dreamportrait.export.mesh_views import HALF, HeadViews
from dreamportrait.geometry.raster import rasterise
from dreamportrait.geometry.rays import project

FACING = 8  # power of the cosine between a view's direction and the normal
EDGE = 2.0  # pixels inside the silhouette from which a picture is trusted fully: its edge mixes with the background
OPAQUE = 0.95  # opacity of the head from which a pixel is trusted fully
HIDDEN = 2.5  # widths of a pixel behind the visible surface from which a point counts as hidden
SEEN = 0.02  # weight of the colours around a point, beside those of the views that see it: decides where few do
SOURCES = 400  # vertices, at most, whose colours continue over what no view shows
CLOSE = 0.01  # distance within which all of them count alike
BORDER = 8  # texels around the patches that continue their colours


def mix_views(views: HeadViews, points: Array, normals: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the views' colours [N, 3], of 0 .. 1 each, and the sum of the weights [N].

    A view counts by how directly it faces each of the points [N, 3], if it sees it.
    """
    place, facing = torch.from_numpy(points).float(), torch.from_numpy(normals).float()
    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points))
    pictures = zip(views.cameras, views.colors, views.opacity, views.depth, views.masks, strict=True)
    for camera, color, opacity, depth, mask in pictures:
        uv, distance = project(place[None], camera[None])
        pixel = float(camera[[3, 7, 11]].norm() / camera[16]) / mask.shape[-1]  # its width where the head is
        trust = _look_up(_trust(mask, opacity)[None], uv[0])[:, 0]
        # The nearest depth around each pixel, so that nothing shines through at the edge of what hides it.
        nearest = -F.max_pool2d(-depth.where(torch.from_numpy(mask), 1e6)[None], 3, 1, 1)
        seen = distance[0] < _look_up(nearest, uv[0])[:, 0] + HIDDEN * pixel
        towards = F.normalize(camera[[3, 7, 11]] - place, dim=1)
        weight = (towards * facing).sum(1).clamp_min(0) ** FACING * trust * seen
        total += weight[:, None] * _look_up(color.clamp(-1, 1) / 2 + 0.5, uv[0])
        weights += weight
    return total.numpy(), weights.numpy()


def _trust(mask: Array, opacity: Tensor) -> Tensor:  # [r, r] in 0 .. 1
    """Return how little of the background is mixed into each pixel."""
    inside = torch.from_numpy(signed_distance(mask) - 0.5).float() / EDGE
    return torch.minimum(inside, (opacity - HALF) / (OPAQUE - HALF)).clamp(0, 1)


def _look_up(picture: Tensor, uv: Tensor) -> Tensor:  # [C, H, W], [N, 2] in 0 .. 1 -> [N, C]
    return F.grid_sample(picture[None], uv[None, None] * 2 - 1, padding_mode="border", align_corners=False)[0, :, 0].T


def vertex_colors(views: HeadViews, positions: Array, normals: Array) -> Array:  # [V, 3] in 0 .. 1
    """Return the colour of each vertex. What no view shows continues the colours around it."""
    total, weights = mix_views(views, positions, normals)
    sure = np.flatnonzero(weights > 4 * SEEN)
    if not len(sure):  # no view looks at this mesh
        return np.full_like(positions, 0.5)
    unsure = np.flatnonzero(weights <= 4 * SEEN)
    around = total.copy()
    around[sure] *= (SEEN / weights[sure])[:, None]
    around[unsure] = SEEN * _continued(positions[sure], total[sure] / weights[sure, None], positions[unsure])
    mixed: Array = (total + around) / (weights + SEEN)[:, None]
    return mixed.astype(np.float32)


def _continued(places: Array, colors: Array, points: Array) -> Array:  # [S, 3], [S, 3], [N, 3] -> [N, 3]
    """Return the mean of the colours, weighted by 1 / distance^8 (Shepard's interpolation)."""
    few = slice(None, None, -(-len(places) // SOURCES))
    squares = ((points**2).sum(1)[:, None] + (places[few] ** 2).sum(1)) - 2 * points @ places[few].T  # [N, few]
    weights = 1 / np.maximum(squares, CLOSE**2) ** 4
    mean: Array = weights @ colors[few] / weights.sum(1, keepdims=True)
    return mean


def bake(views: HeadViews, atlas: Atlas, positions: Array, normals: Array, colors: Array, size: int) -> Array:
    """Return the texture [T, T, 3] of uint8: the views' colours, and those of the vertices where no view sees it."""
    drawn = rasterise(atlas.places, atlas.depth, atlas.faces, (size, size))
    corners = np.concatenate([positions, normals, colors], 1)[atlas.vertices]
    points, facing, fallback = np.split(drawn.blend(atlas.faces, corners).astype(np.float32), 3, axis=1)
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-6)
    total, weights = mix_views(views, points, facing)
    texture = np.zeros((size, size, 3), np.float32)
    x, y = np.floor(atlas.places).astype(np.int64).clip(0, size - 1).T
    texture[y, x] = colors[atlas.vertices]  # patches so small that they contain no texel's centre
    known = drawn.mask.copy()
    known[y, x] = True
    texture[drawn.mask] = (total + SEEN * fallback) / (weights + SEEN)[:, None]
    # Filtering reaches over the edges of the patches, so texels beside them take the colour of the nearest inside.
    distance, (y, x) = ndimage.distance_transform_edt(~known, return_indices=True)
    filled = np.where((distance <= BORDER)[..., None], texture[y, x], texture[known].mean(0))
    rounded: Array = (filled * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return rounded

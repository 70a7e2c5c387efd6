"""A z-buffer rasteriser in NumPy, for silhouettes of meshes and for baking textures. It has no gradients."""

from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.geometry.rays import project


class Raster(NamedTuple):
    """The foremost triangle at the centre of each pixel."""

    faces: Array  # [H, W] index of the triangle, -1 where there is none
    shares: Array  # [H, W, 3] how much each of its corners counts, 0 where there is none
    depth: Array  # [H, W] infinite where there is none

    @property
    def mask(self) -> Array:  # [H, W] bool
        return self.faces >= 0

    def blend(self, faces: Array, values: Array) -> Array:  # [F, 3], [V, C] -> [P, C], at the pixels of the mask
        """Interpolate values of the vertices."""
        corners = values[faces[self.faces[self.mask]]]  # [P, 3, C]
        return (self.shares[self.mask][..., None] * corners).sum(1)


def rasterise(places: Array, depth: Array, faces: Array, size: tuple[int, int]) -> Raster:
    """Draw triangles at places [V, 2], in pixels (x to the right, y down) with the corner of the picture at 0.

    depth [V] decides which triangle is in front: the smallest. size: height and width in pixels.
    """
    height, width = size
    corners = places[faces].astype(np.float64)  # [F, 3, 2]
    limit = np.array([width, height])
    first = np.ceil(corners.min(1) - 0.5).clip(0, limit).astype(np.int64)  # the first pixel centre inside the bounds
    after = (np.floor(corners.max(1) - 0.5) + 1).clip(0, limit).astype(np.int64)
    span = (after - first).clip(0)
    count = span.prod(1)
    face = np.repeat(np.arange(len(faces)), count)  # every pixel within the bounds of every triangle
    within = np.arange(len(face)) - np.repeat(count.cumsum() - count, count)
    x, y = first[face, 0] + within % span[face, 0], first[face, 1] + within // span[face, 0]
    shares, inside = _shares(corners[face], x + 0.5, y + 0.5)
    face, x, y, shares = face[inside], x[inside], y[inside], shares[inside]
    distance = (shares * depth[faces[face]]).sum(1)
    order = np.argsort(-distance, kind="stable")  # the last value written to a pixel stays: the nearest
    pixel = (y[order], x[order])
    found = Raster(np.full(size, -1), np.zeros((*size, 3)), np.full(size, np.inf))
    found.faces[pixel], found.shares[pixel], found.depth[pixel] = face[order], shares[order], distance[order]
    return found


def _shares(corners: Array, x: Array, y: Array) -> tuple[Array, Array]:  # [P, 3, 2] -> [P, 3], [P] bool
    """Return barycentric coordinates of points, and whether they lie in the triangle."""
    a, b, c = (corners[:, k] - np.stack([x, y], 1) for k in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
    total = areas.sum(1)
    shares = areas / np.where(total == 0, 1, total)[:, None]
    return shares, (total != 0) & (shares >= 0).all(1)


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def seen_from(positions: Array, faces: Array, camera: Tensor, size: int) -> Raster:  # camera [25]
    """Draw a mesh, positions [V, 3] in the world's units, as a camera sees it. Depths are along the ray.

    All vertices must lie in front of the camera.
    """
    places, distances = project(torch.as_tensor(positions).float()[None], camera.float()[None])
    return rasterise(places[0].numpy() * size, distances[0].numpy(), faces, (size, size))

"""Atlases: which point of a mesh each texel shows, and gutters that keep lookups at borders from bleeding.

Texel (i, j), in row i and column j of T x T, has its centre at u = (j + 0.5) / T, v = (i + 0.5) / T, from the upper
left corner.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from scipy.spatial import cKDTree  # type: ignore[import-untyped]
from torch import Tensor

from dreamportrait.geometry.meshes import visible_surface


@dataclass(frozen=True, eq=False)
class Atlas:
    """The P texels of a texture that a mesh uses."""

    mask: Tensor  # [T, T] bool
    texels: Tensor  # [P] indices into T * T
    faces: Array  # [P] the face that each shows
    shares: Array  # [P, 3] where in it
    places: Array  # [P, 2] u, v

    def points(self, vertices: Array, faces: Array) -> Array:  # [V, C], [F, 3] -> [P, C]
        """Return values of vertices at the texels."""
        found: Array = (self.shares[..., None] * vertices[faces[self.faces]]).sum(1)
        return found


def atlas(uv: Tensor, uv_faces: Tensor, size: int) -> Atlas:  # [U, 2], [F, 3]
    """Draw the mesh into its texture."""
    flat = torch.cat([uv.double() * size, torch.ones(len(uv), 1, dtype=torch.float64, device=uv.device)], 1)
    surface = visible_surface(flat[None], uv_faces, size)
    mask = surface.ids[0] >= 0
    at = torch.stack([surface.pixels % size, surface.pixels // size], 1)
    places = ((at + 0.5) / size).cpu().numpy()
    return Atlas(mask, surface.pixels, surface.faces.cpu().numpy(), surface.shares.cpu().numpy(), places)


class Gutter(NamedTuple):
    """The texels beside the parts of an atlas, and the texels that they copy: those across the seam."""

    texels: Tensor  # [G] indices into T * T
    sources: Tensor  # [G]

    def fill(self, texture: Tensor) -> Tensor:  # [C, T, T] -> [C, T, T]
        """Return the texture with its gutters filled, so that lookups at both sides of a seam find the same colours."""
        flat = texture.flatten(1)
        return flat.index_copy(1, self.texels, flat[:, self.sources]).view_as(texture)


def gutter(places: Atlas, uv: Array, uv_faces: Array, vertices: Array, faces: Array) -> Gutter:
    """Find the texels that touch a part, and for each the texel that shows the surface there.

    The triangle beside a texel is continued to its centre. Where the mesh goes on across a seam, the nearest texel on
    the surface is one of the other side; at an open border it is the texel's own neighbour.
    """
    size = len(places.mask)
    mask = places.mask.cpu().numpy()
    owner = np.full(size * size, -1)
    owner[places.texels.cpu().numpy()] = np.arange(len(places.faces))
    padded = np.pad(owner.reshape(size, size), 1, constant_values=-1)
    near = np.full((size, size), -1)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2)):
        beside = padded[row : row + size, column : column + size]
        near = np.where(near < 0, beside, near)
    texels = np.flatnonzero(~mask & (near >= 0))
    face = places.faces[near.ravel()[texels]]
    centre = (np.stack([texels % size, texels // size], 1) + 0.5) / size
    a, b, c = uv[uv_faces[face]].astype(np.float64).transpose(1, 0, 2)  # [G, 2] each
    shares = np.linalg.solve(np.stack([b - a, c - a], -1) + 1e-12 * np.eye(2), (centre - a)[..., None])[..., 0]
    whole = np.concatenate([1 - shares.sum(1, keepdims=True), shares], 1)
    points = (whole[..., None] * vertices[faces[face]]).sum(1)
    _, nearest = cKDTree(places.points(vertices, faces)).query(points)
    return Gutter(torch.from_numpy(texels), places.texels.cpu()[torch.from_numpy(nearest)])


def dilated(texture: Tensor, mask: Tensor, rounds: int = 4) -> Tensor:  # [C, T, T], [T, T] -> [C, T, T]
    """Fill the texels outside the mask with means of their filled neighbours, `rounds` texels far."""
    known = mask[None].to(texture.dtype)  # [1, T, T]
    texture = texture * known
    ones = texture.new_ones(1, 1, 3, 3)
    for _ in range(rounds):
        count = F.conv2d(known[None], ones, padding=1)[0]  # [1, T, T]
        total = F.conv2d(texture[:, None], ones, padding=1)[:, 0]  # [C, T, T]
        grown = (known == 0) & (count > 0)
        texture = torch.where(grown, total / count.clamp_min(1), texture)
        known = torch.where(grown, torch.ones_like(known), known)
    return texture


def sampled(texture: Tensor, uv: Tensor) -> Tensor:  # [C, T, T], [P, 2] -> [P, C]
    """Look up a texture bilinearly."""
    places = (uv * 2 - 1)[None, None]  # [1, 1, P, 2]
    found = F.grid_sample(texture[None], places, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].T

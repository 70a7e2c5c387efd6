"""Atlases: which point of a mesh each texel shows, and gutters that keep lookups at borders from bleeding.

Texel (i, j), in row i and column j of T x T, has its centre at u = (j + 0.5) / T, v = (i + 0.5) / T, from the upper
left corner.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from numpy import ndarray as Array
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

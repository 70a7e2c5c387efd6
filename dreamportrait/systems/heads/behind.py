"""Colours of the back of a head, which no view shows while the head is tuned.

The change of a texture spreads from the texels that views show well to the others, across the seam, as heat does: each
texel becomes the mean of its neighbours, again and again. Hair that reaches the sides so covers the back. The inside of
the mouth, of which views show parts by chance, is left as it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.meshes import vertex_normals
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.uv import Atlas, Gutter

FACING = 0.4  # cosine between normal and ray from which on a view shows a texel well
ROUNDS = 200
INSIDE = ("mouth", "teeth", "gum", "tongue")  # parts with such names


def well_shown(model: HeadModel, vertices: Tensor, places: Atlas, yaws: list[float]) -> Tensor:  # [V, 3] -> [T, T] bool
    """Return which texels at least one of the views shows from the front, and not at a flat angle."""
    faces = model.faces.numpy()
    points = torch.from_numpy(places.points(vertices.numpy(), faces)).float()  # [P, 3]
    at_vertices = vertex_normals(vertices[None], model.faces)[0].numpy()
    normals = F.normalize(torch.from_numpy(places.points(at_vertices, faces)).float(), dim=1)
    eyes = orbit(yaws, 0.0, RADIUS, (0.0, 0.0, 0.0))[:, [3, 7, 11]]  # [N, 3]
    towards = F.normalize(eyes[:, None] - points, dim=2)  # [N, P, 3]
    shown = ((towards * normals).sum(2) > FACING).any(0)
    found = torch.zeros_like(places.mask)
    found.view(-1)[places.texels[shown]] = True
    return found


def outside(model: HeadModel, places: Atlas) -> Tensor:  # [T, T] bool
    """Return the texels of all parts but those within the mouth."""
    found = places.mask.clone()
    if model.parts is not None:
        within = [any(word in name.lower() for word in INSIDE) for name in model.part_names]
        found.view(-1)[places.texels[torch.tensor(within)[model.parts[places.faces]]]] = False
    return found


def spread(change: Tensor, known: Tensor, mask: Tensor, border: Gutter) -> Tensor:  # [C, T, T], [T, T] bool x 2
    """Return the change with the texels of the mask that are not known filled from their neighbours.

    Where the known texels of a part end, those beyond them start from none.
    """
    free = mask & ~known
    kernel = change.new_ones(1, 1, 3, 3)
    valid = border.fill(mask[None].to(change.dtype))  # gutters count as what lies across the seam
    count = F.conv2d(valid[None], kernel, padding=1)[0].clamp_min(1)
    change = torch.where(free, torch.zeros_like(change), change)
    for _ in range(ROUNDS):
        total = F.conv2d((border.fill(change) * valid)[:, None], kernel, padding=1)[:, 0]
        change = torch.where(free, total / count, change)
    return border.fill(change)

"""Paints a head with the colours of views of another head that it was fitted to.

Each texel takes the mean of the views in which its point is seen, weighted by (n . v)^4, without the light of the
miniature world. Texels that no view shows take the colours of the mirrored side, else those of the nearest points of
the same part, else the mean texture. The inside of the mouth always keeps the mean texture.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from scipy.spatial import cKDTree  # type: ignore[import-untyped]
from torch import Tensor

from dreamportrait.geometry.meshes import to_screen, vertex_normals
from dreamportrait.geometry.views import Views
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.render import AMBIENT, DIFFUSE, LIGHT, render
from dreamportrait.systems.heads.uv import Atlas, atlas, dilated

TEXELS = 128  # along each side, at least
BUFFER = 256  # pixels of the depth pictures that tell what is hidden
NEAR = 0.02  # a point is seen if nothing is so much nearer, in the world's units
BEHIND = 0.06  # what the view shows may be so much behind the point, or any length before it: hair, a hat
SURE = 0.05  # sum of weights above which a texel counts as seen
NEIGHBOURS = 8
INSIDE = ("mouth", "teeth", "gum", "tongue")  # parts with such names keep the mean texture: views show them by chance


@torch.no_grad()
def painted(head: Head, views: Views) -> Head:
    """Return the head with a texture from the views."""
    model = head.model
    assert model.uv is not None and model.uv_faces is not None
    size = max(TEXELS, head.texture.shape[1])
    places = atlas(model.uv, model.uv_faces, size)
    faces = model.faces.numpy()
    points = torch.from_numpy(places.points(head.vertices.numpy(), faces)).float()  # [P, 3]
    normals = F.normalize(
        torch.from_numpy(places.points(vertex_normals(head.vertices[None], model.faces)[0].numpy(), faces)).float(),
        dim=1,
    )
    light = F.normalize(torch.tensor(LIGHT), dim=0)
    lamp = AMBIENT + DIFFUSE * float(torch.tensor(LIGHT).norm()) * (normals @ light).clamp_min(0)
    total, weight = torch.zeros(len(points), 3), torch.zeros(len(points))
    for i in range(len(views.cameras)):
        share = _share(head, views, i, points, normals)
        colours = _looked_up(views.colors[i : i + 1].float() * 0.5 + 0.5, views.cameras[i : i + 1], points)
        total += share[:, None] * (colours / lamp[:, None]).clamp(0, 1)
        weight += share
    mean = F.interpolate(head.texture[None], (size, size), mode="bilinear")[0].flatten(1).T[places.texels]  # [P, 3]
    filled = _filled(head, places, (total / weight.clamp_min(1e-6)[:, None]).numpy(), weight.numpy(), mean.numpy())
    texture = torch.zeros(3, size * size)
    texture[:, places.texels] = torch.from_numpy(filled).float().T
    return replace(head, texture=dilated(texture.view(3, size, size), places.mask).clamp(0, 1))


def _share(head: Head, views: Views, i: int, points: Tensor, normals: Tensor) -> Tensor:  # [P]
    """Return how much a view counts for each point: 0 where it is hidden or outside of what the view shows."""
    camera = views.cameras[i : i + 1]
    towards = F.normalize(camera[:, [3, 7, 11]] - points, dim=1)
    facing = (normals * towards).sum(1).clamp_min(0) ** 4
    drawn = render(head.vertices[None], head.model, head.texture, camera, BUFFER, torch.zeros(3), "none")
    nearest = _looked_up(
        torch.where(drawn.mask > 0.99, drawn.depth, torch.full_like(drawn.depth, torch.inf)), camera, points, "nearest"
    )
    far = (camera[:, [3, 7, 11]] - points).norm(dim=1)
    shown = _looked_up(views.opacity[i : i + 1].float(), camera, points)[:, 0]
    seen = _looked_up(views.depth[i : i + 1].float(), camera, points)[:, 0]
    return facing * (far < nearest[:, 0] + NEAR) * (shown > 0.95) * (seen < far + BEHIND)


def _looked_up(pictures: Tensor, camera: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:  # [P, C]
    places = to_screen(points[None], camera, 1)[0, :, :2] * 2 - 1
    found = F.grid_sample(pictures, places[None, None], mode=mode, padding_mode="border", align_corners=False)
    return found[0, :, 0].T


def _filled(head: Head, places: Atlas, colours: Array, weight: Array, mean: Array) -> Array:  # [P, 3] each, [P]
    """Return colours of all texels."""
    model = head.model
    rest = places.points(model.v_template.numpy(), model.faces.numpy())  # [P, 3]
    part = np.zeros(len(rest), int) if model.parts is None else model.parts.numpy()[places.faces]
    found = mean.copy()
    for each in np.unique(part):
        name = model.part_names[each].lower() if model.parts is not None else ""
        mine = np.flatnonzero(part == each)
        sure = mine[weight[mine] > SURE]
        if not len(sure) or any(word in name for word in INSIDE):
            continue
        found[sure] = colours[sure]
        missing = mine[weight[mine] <= SURE]
        tree = cKDTree(rest[sure])
        gap, other = tree.query(rest[missing] * [-1, 1, 1])  # the mirrored side
        far, near = tree.query(rest[missing], k=min(NEIGHBOURS, len(sure)))
        far, near = far.reshape(len(missing), -1), near.reshape(len(missing), -1)
        close = 1 / (far + 1e-3 * np.ptp(rest[:, 1])) ** 2
        spread = (colours[sure][near] * close[..., None]).sum(1) / close.sum(1, keepdims=True)
        mirrored = gap < 0.02 * np.ptp(rest[:, 1])
        found[missing] = np.where(mirrored[:, None], colours[sure][other], spread)
    return found

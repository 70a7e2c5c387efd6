"""Differentiable pictures of textured meshes, under the lamp of the miniature world.

    picture = render(vertices, model, texture, cameras, size=128, background=background)

Colours are those of a texture times 0.66 + 0.42 max(0, n . l), with a light l that is fixed to the head. Gradients
flow to vertices, through interpolation, normals and silhouettes, and to the texture.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.geometry.antialias import antialias
from dreamportrait.geometry.cameras import check_camera
from dreamportrait.geometry.meshes import Surface, to_screen, vertex_normals, visible_surface
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.uv import sampled

Shading = Literal["lamp", "normals", "none"]
LIGHT = (-0.40, 0.55, 0.73)  # towards the lamp of the miniature world
AMBIENT, DIFFUSE = 0.66, 0.42


class Rendering(NamedTuple):
    image: Tensor  # [N, 3, S, S] in -1 .. 1
    depth: Tensor  # [N, 1, S, S] along the ray, 0 where only background is seen
    mask: Tensor  # [N, 1, S, S] how much of each pixel the mesh covers
    ids: Tensor  # [N, S, S] the face at each pixel, -1 where there is none


def render(
    vertices: Tensor,  # [N, V, 3] or [1, V, 3] in the world of the cameras
    model: HeadModel,  # faces and places in the texture
    texture: Tensor,  # [3, T, T] in 0 .. 1
    cameras: Tensor,  # [N, 25]
    size: int,
    background: Tensor,  # [N, 3] or [3] in 0 .. 1
    shading: Shading = "lamp",
) -> Rendering:
    """Draw one mesh, or one for each camera."""
    check_camera(cameras)
    if model.uv is None or model.uv_faces is None:
        raise ValueError(f"head model {model.name!r} has no places in a texture (uv), so that it cannot be painted")
    given = vertices
    vertices = vertices.expand(len(cameras), -1, -1)
    screen = to_screen(vertices, cameras, size)
    surface = visible_surface(screen, model.faces, size)
    normals = vertex_normals(given, model.faces).expand(len(cameras), -1, -1)
    colors = _colours(model, surface, texture, normals, shading)
    far = (surface.blend(model.faces, vertices) - cameras[:, [3, 7, 11]][surface.image]).norm(dim=1, keepdim=True)
    empty = colors.new_zeros(len(cameras), 1, size, size)
    depth = surface.picture(far, empty)
    behind = background.expand(len(cameras), 3)[:, :, None, None].expand(-1, -1, size, size)
    layers = torch.cat([colors, torch.ones_like(far)], 1)
    picture = surface.picture(layers, torch.cat([behind.to(colors.dtype), empty], 1))
    smooth = antialias(picture, screen, model.faces, model.edges, surface)
    return Rendering(smooth[:, :3] * 2 - 1, depth, smooth[:, 3:], surface.ids)


def _colours(model: HeadModel, surface: Surface, texture: Tensor, normals: Tensor, shading: Shading) -> Tensor:
    """Return the colours [P, 3] of the covered pixels in 0 .. 1."""
    assert model.uv is not None and model.uv_faces is not None
    n = F.normalize(surface.blend(model.faces, normals), dim=1)
    if shading == "normals":
        return n * 0.5 + 0.5
    albedo = sampled(texture, surface.blend(model.uv_faces, model.uv))
    if shading == "none":
        return albedo
    light = F.normalize(n.new_tensor(LIGHT), dim=0)
    length = float(torch.tensor(LIGHT).norm())  # the world's light is a little shorter or longer than 1
    lamp = AMBIENT + DIFFUSE * length * (n @ light).clamp_min(0)
    return (albedo * lamp[:, None]).clamp_max(1)


def reduced(images: Tensor, factor: int = 2) -> Tensor:  # [N, C, S, S] -> [N, C, S / factor, S / factor]
    """Average over squares of pixels."""
    return F.avg_pool2d(images, factor)

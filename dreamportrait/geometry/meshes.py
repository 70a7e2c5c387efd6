"""Triangle meshes as a camera sees them: edges, normals, screen coordinates, and the surface at each pixel."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.geometry.cameras import check_label
from eg3d_ops import rasterize

_TINY = 1e-12


class Edges(NamedTuple):
    """The edges of a mesh with the faces on both sides. Edges of more than two faces appear several times."""

    ends: Tensor  # [E, 2] vertices
    faces: Tensor  # [E, 2]; the second is -1 at a boundary


def edges_of(faces: Tensor) -> Edges:  # [F, 3]
    """Return every edge once for each pair of faces that share it, and once where it has a single face."""
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values  # [3F, 2]
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    key = sides[:, 0] * (int(faces.max()) + 1) + sides[:, 1]
    order = key.argsort(stable=True)
    sides, owner, key = sides[order], owner[order], key[order]
    follows = torch.zeros_like(key, dtype=torch.bool)
    follows[1:] = key[1:] == key[:-1]  # the same edge as the row before
    leads = torch.zeros_like(follows)
    leads[:-1] = follows[1:]
    single, second = ~follows & ~leads, torch.nonzero(follows).flatten()
    pairs = torch.stack([owner[second - 1], owner[second]], 1)
    alone = torch.stack([owner[single], torch.full_like(owner[single], -1)], 1)
    return Edges(torch.cat([sides[second], sides[single]]), torch.cat([pairs, alone]))


def vertex_normals(points: Tensor, faces: Tensor) -> Tensor:  # [N, V, 3], [F, 3] -> [N, V, 3]
    """Return unit normals, the means of the adjacent faces' normals weighted by their areas."""
    a, b, c = (points[:, faces[:, k]] for k in range(3))
    across = torch.linalg.cross(b - a, c - a)  # [N, F, 3], twice the area long
    total = torch.zeros_like(points)
    for k in range(3):
        total = total.index_add(1, faces[:, k], across)
    return F.normalize(total, dim=-1, eps=_TINY)


def to_screen(points: Tensor, cameras: Tensor, size: int) -> Tensor:  # [N, V, 3], [N, 25] -> [N, V, 3]
    """Return x and y in pixels (y down, 0 at the upper left corner of the picture) and z along the camera's axis."""
    check_label(cameras, batch=len(points), name="cameras")
    matrix = cameras[:, :16].reshape(-1, 4, 4)
    x, y, z = ((points - matrix[:, None, :3, 3]) @ matrix[:, :3, :3]).unbind(-1)
    fx, skew, cx, fy, cy = cameras[:, [16, 17, 18, 20, 21], None].unbind(1)
    return torch.stack([((fx * x + skew * y) / z + cx) * size, (fy * y / z + cy) * size, z], -1)


def rows(values: Tensor, vertices: Tensor, image: Tensor | None = None) -> Tensor:  # [N, V, C] or [V, C]
    """Return values[image, vertices], or values[vertices], [..., C]. Copying whole rows is faster on a CPU."""
    if image is not None:
        vertices = image * values.shape[1] + vertices
    return values.reshape(-1, values.shape[-1]).index_select(0, vertices.flatten()).unflatten(0, vertices.shape)


class Surface(NamedTuple):
    """What the covered pixels of N pictures show. P pixels are covered; everything but ids carries gradients."""

    ids: Tensor  # [N, S, S] the face at each pixel, -1 where there is none
    pixels: Tensor  # [P] indices of the covered pixels into N * S * S
    image: Tensor  # [P] the picture of each
    faces: Tensor  # [P] the face of each
    shares: Tensor  # [P, 3] how much each corner counts: barycentric, corrected for perspective
    inverse: Tensor  # [N, S, S] 1/z, 0 where nothing is seen; without gradient

    def blend(self, corners: Tensor, values: Tensor) -> Tensor:  # [F, 3], [N, V, C] or [V, C] -> [P, C]
        """Interpolate values of the vertices. `corners`: the faces, or other indices per face such as those of uv."""
        chosen = corners.index_select(0, self.faces)  # [P, 3]
        given = rows(values, chosen) if values.ndim == 2 else rows(values, chosen, self.image[:, None])  # [P, 3, C]
        return torch.einsum("pk,pkc->pc", self.shares, given)

    def picture(self, values: Tensor, background: Tensor) -> Tensor:  # [P, C], [N, C, S, S] -> [N, C, S, S]
        """Place values of the covered pixels over a background."""
        n, c, s, _ = background.shape
        flat = background.permute(0, 2, 3, 1).reshape(-1, c)
        return flat.index_copy(0, self.pixels, values).reshape(n, s, s, c).permute(0, 3, 1, 2)


def visible_surface(screen: Tensor, faces: Tensor, size: int, impl: str = "auto") -> Surface:  # [N, V, 3], [F, 3]
    """Find the triangle at each pixel, and where in it the pixel lies. `screen`: of to_screen."""
    ids = rasterize(screen.detach().float(), faces, size, size, impl=impl)  # [N, S, S]
    pixels = torch.nonzero(ids.flatten() >= 0).flatten()
    found = ids.flatten()[pixels].long()
    image, within = pixels // size**2, pixels % size**2
    centre = torch.stack([within % size, within // size], 1).to(screen.dtype) + 0.5  # [P, 2]
    corners = rows(screen, faces.index_select(0, found), image[:, None])  # [P, 3, 3]
    x, y = (corners[..., :2] - centre[:, None]).unbind(-1)  # [P, 3] each
    areas = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)  # twice the area opposite of each corner
    flat = areas / _away_from_zero(areas.sum(1, keepdim=True))  # shares on the screen
    over_z = flat / corners[..., 2]
    total = over_z.sum(1, keepdim=True)
    inverse = screen.new_zeros(ids.numel()).index_copy(0, pixels, total[:, 0].detach()).reshape(ids.shape)
    return Surface(ids, pixels, image, found, over_z / _away_from_zero(total), inverse)


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _TINY, torch.full_like(x, _TINY), x)

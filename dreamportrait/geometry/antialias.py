"""Antialiasing of silhouettes, which carries the gradient of a picture with respect to outlines.

Rasterised coverage is a step function of the vertices, so that its derivative is zero. Along a silhouette, let an edge
of the mesh cross the line between the centres of two neighbouring pixels, p on the side of the surface and q on the
other, at p + s (q - p). The surface then covers the part s + 1/2 of the two pixels between p - 1/2 and q + 1/2:

    s > 1/2:  q <- q + w (s - 1/2) (p - q)       s < 1/2:  p <- p + w (1/2 - s) (q - p)

s is a quotient of the coordinates of the edge, through which autograd moves the vertices. Rows and columns of pixels
both see an edge, and would count each piece of an outline twice. With d the direction of the edge, crossings in rows
have the weight w = d_y^2 / |d|^2 and those in columns d_x^2 / |d|^2. Choosing one of the two instead, by the steeper
side, makes the gradient jump where an outline turns from steep to flat: 4 % of the outline of a disc of radius 12.

All silhouette edges are intersected with the grid of pixel centres, and not only those of the triangles that are seen:
near an outline, triangles are often too thin to cover a pixel centre.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.geometry.meshes import Edges, Surface, rows


class Crossings(NamedTuple):
    """Where silhouettes cross lines between neighbouring pixel centres, K times."""

    inner: Tensor  # [K] the pixel on the side of the surface, index into N * S * S
    outer: Tensor  # [K] its neighbour across the silhouette
    s: Tensor  # [K] in 0 .. 1; differentiable
    weight: Tensor  # [K] in 0 .. 1; differentiable


def antialias(picture: Tensor, screen: Tensor, faces: Tensor, edges: Edges, surface: Surface) -> Tensor:
    """Return the picture [N, C, S, S] with smoothed silhouettes. `screen` [N, V, 3]: of meshes.to_screen."""
    n, c, size, _ = picture.shape
    inner, outer, s, weight = crossings(screen, faces, edges, surface)
    flat = picture.permute(0, 2, 3, 1).reshape(-1, c)
    step = (flat[inner] - flat[outer]) * weight[:, None]  # [K, C]
    grows = (s - 0.5).clamp_min(0)[:, None] * step
    shrinks = (0.5 - s).clamp_min(0)[:, None] * step
    smooth = flat.index_add(0, outer, grows).index_add(0, inner, -shrinks)
    return smooth.reshape(n, size, size, c).permute(0, 3, 1, 2)


def crossings(screen: Tensor, faces: Tensor, edges: Edges, surface: Surface) -> Crossings:
    """Return the crossings of visible silhouettes, at most one for each pair of pixels: that of the nearest edge."""
    image, edge = silhouettes(screen.detach(), faces, edges)
    ends = rows(screen, edges.ends[edge], image[:, None])  # [M, 2, 3]
    third = _third_corner(screen.detach(), faces, edges, image, edge)  # [M, 2]
    parts = [_along(axis, ends, third, image, surface) for axis in (0, 1)]
    found = Crossings(*(torch.cat(each) for each in zip(*(part for part, _ in parts), strict=True)))
    return _nearest(found, torch.cat([nearness for _, nearness in parts]))


def silhouettes(screen: Tensor, faces: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:  # [M] pictures, [M] edges
    """Return the edges between a face that is seen from the front and one from behind, and those of a single face."""
    a, b, c = (screen.index_select(1, faces[:, k])[..., :2] for k in range(3))
    area = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]  # [N, F]
    one, other = (area.index_select(1, edges.faces[:, k].clamp_min(0)) for k in (0, 1))
    turns = (one > 0) != (other > 0)
    found = torch.nonzero(turns | (edges.faces[:, 1] < 0))
    return found[:, 0], found[:, 1]


def _third_corner(screen: Tensor, faces: Tensor, edges: Edges, image: Tensor, edge: Tensor) -> Tensor:
    """Return the place [M, 2] of the corner of an adjacent face that does not lie on the edge.

    At a silhouette both faces lie on the same side of the edge, so that either will do.
    """
    corners, ends = faces[edges.faces[edge, 0]], edges.ends[edge]  # [M, 3], [M, 2]
    apart = (corners[:, :, None] != ends[:, None]).all(2).long().argmax(1, keepdim=True)
    return screen[image, corners.gather(1, apart)[:, 0], :2]


def _along(axis: int, ends: Tensor, third: Tensor, image: Tensor, surface: Surface) -> tuple[Crossings, Tensor]:
    """Return where edges cross lines between neighbours along x (0) or y (1), and 1/z there [K]."""
    size, other = surface.ids.shape[1], 1 - axis
    owner, row = _lines_crossed(ends[:, :, other].detach(), size)
    image, third = image[owner], third[owner]
    a, b = ends[owner, 0], ends[owner, 1]  # [K, 3]
    d = b - a
    way = (row + 0.5 - a[:, other]) / d[:, other]  # from a to b
    place = a[:, axis] + way * d[:, axis] - 0.5  # 0 at the first centre
    nearness = (1 / a[:, 2] + way * (1 / b[:, 2] - 1 / a[:, 2])).detach()  # 1/z is linear on the screen
    low = place.detach().floor()
    # The surface lies on the side of the third corner.
    before = third[:, axis] < (a[:, axis] + (third[:, other] - a[:, other]) / d[:, other] * d[:, axis]).detach()
    s = torch.where(before, place - low, low + 1 - place)
    along, across = (1, size) if axis == 0 else (size, 1)
    lower = image * size**2 + row * across + low.long() * along
    inner, outer = torch.where(before, lower, lower + along), torch.where(before, lower + along, lower)
    found = Crossings(inner, outer, s, d[:, other].square() / d[:, :2].square().sum(1))
    inside = torch.nonzero((low >= 0) & (low < size - 1)).flatten()
    found, nearness = Crossings(*(each[inside] for each in found)), nearness[inside]
    seen = _is_seen(found, nearness, surface)
    return Crossings(*(each[seen] for each in found)), nearness[seen]


def _lines_crossed(ends: Tensor, size: int) -> tuple[Tensor, Tensor]:  # [M, 2] -> [K], [K]
    """Return, for each line of pixel centres between the ends of an edge, the edge and the line's number."""
    low, high = ends.aminmax(dim=1)
    first = (low - 0.5).ceil().clamp(0, size).long()  # lines lie in [low, high)
    count = ((high - 0.5).ceil().clamp(0, size).long() - first).clamp_min(0)
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    within = torch.arange(len(owner), device=count.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return owner, first[owner] + within


def _is_seen(found: Crossings, nearness: Tensor, surface: Surface) -> Tensor:
    """Return whether the outer pixel shows something behind the edge, and the inner one something before that.

    If something before the edge covers the outer pixel, the silhouette is hidden there.
    """
    inner, outer = (surface.inverse.flatten()[each] for each in (found.inner, found.outer))
    return (outer < nearness) & (outer < inner)


def _nearest(found: Crossings, nearness: Tensor) -> Crossings:
    """Keep the nearest crossing of each pair of pixels."""
    if not len(nearness):
        return found
    order = nearness.argsort(descending=True, stable=True)
    low, high = torch.minimum(found.inner, found.outer)[order], torch.maximum(found.inner, found.outer)[order]
    _, place = torch.unique(low * (int(high.max()) + 1) + high, return_inverse=True)
    first = torch.full([int(place.max()) + 1], len(place), dtype=torch.long, device=place.device)
    kept = order[first.scatter_reduce(0, place, torch.arange(len(place), device=place.device), "amin")]
    return Crossings(*(each[kept] for each in found))

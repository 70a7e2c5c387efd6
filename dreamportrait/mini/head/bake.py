"""Exact textures of the miniature world: the colour that a ray from outside meets first at each texel.

Hair, hats, beards and glasses are painted on the bald mesh, without light. No texture on this mesh can show more, so
that these textures are ceilings; score distillation never sees them.

The colours are those of miniworld.faces, whose private functions are called here: the cache of rendered faces depends
on the text of that file, so that it must not change for this.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array

from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.basis import positions
from dreamportrait.mini.head.grid import Grid
from dreamportrait.miniworld import faces as painting
from dreamportrait.miniworld.attributes import Attributes
from dreamportrait.miniworld.caster import Solid
from dreamportrait.miniworld.faces import LENS_X, LENS_Y, LENS_Z, RIM, SCALE
from dreamportrait.miniworld.heads import FRAME, LENS, Part, Shape, build
from dreamportrait.systems.heads.uv import Atlas, dilated
from dreamportrait.systems.heads.uv import atlas as make_atlas

TEETH, DARK = (250, 246, 238), (58, 16, 18)
RAYS = 2  # per texel, in each direction
_START = 2.0  # rays start so far outside, in units of miniworld.heads


def fine_atlas(grid: Grid) -> Atlas:
    """Return the atlas whose texels are the rays of `bake`."""
    return make_atlas(torch.from_numpy(grid.uv), torch.from_numpy(grid.uv_faces), RAYS * mesh.ATLAS)


def bake(attributes: Attributes, traits: Array, grid: Grid, atlas: Atlas) -> Array:  # [3, T, T] in 0 .. 1
    """Return the texture of an identity. `atlas` may have a multiple of the texture's size; colours are averaged."""
    shape = Shape(attributes, traits)
    points = atlas.points(positions(shape, grid) / SCALE, grid.faces)  # [P, 3]
    part = grid.parts[atlas.faces]
    colors = np.zeros((len(points), 3), np.float32)
    solids = build(shape)
    skin = part == mesh.PARTS.index("skin")
    outside = [solid for solid in solids if solid.part not in (Part.CLOTHES, Part.EYE)]
    colors[skin] = colour_outside(shape, outside, points[skin], _unit(points[skin]))
    eyes = part == mesh.PARTS.index("eyes")
    centre = np.where(points[eyes, :1] < 0, -1, 1) * np.array([shape.eye_x, 0, 0]) + np.array([0, shape.eye_y, 0.12])
    # The side of the eye within the head is seen when the eye turns.
    balls = [solid for solid in solids if solid.part == Part.EYE]
    colors[eyes] = colour_outside(shape, balls, points[eyes], _unit(points[eyes] - centre))
    bust = part == mesh.PARTS.index("bust")
    collar = atlas.places[:, 1] * mesh.ATLAS > mesh.TILES["bust"][1] + 0.66 * mesh.TILES["bust"][3]
    colors[bust] = shape.clothes * np.where(collar[bust], 0.82, 1.0)[:, None]
    mouth = part == mesh.PARTS.index("mouth")
    white = atlas.places[:, 1] * mesh.ATLAS < mesh.TILES["mouth"][1] + 0.45 * mesh.TILES["mouth"][3]
    colors[mouth] = np.where(white[mouth, None], np.array(TEETH), np.array(DARK))
    fine = torch.zeros(*atlas.mask.shape, 3)
    fine.view(-1, 3)[atlas.texels] = torch.from_numpy(np.clip(colors / 255, 0, 1)).float()
    factor = len(atlas.mask) // mesh.ATLAS
    filled: Array = F.avg_pool2d(dilated(fine.permute(2, 0, 1), atlas.mask, 4 * factor), factor).numpy()
    return filled


def _unit(x: Array) -> Array:
    found: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return found


class Met(NamedTuple):
    solid: Array  # [P] the first solid of each ray, -1 for none
    t: Array  # [P] how far along the ray


def first_met(solids: list[Solid], origins: Array, ways: Array) -> Met:  # [P, 3] each
    """Return the first solid that each ray meets, keeping to the parts of solids that exist."""
    found, best = np.full(len(origins), -1), np.full(len(origins), np.inf)
    for i, solid in enumerate(solids):
        cos, sin = np.cos(solid.roll), np.sin(solid.roll)
        matrix = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) / np.array(solid.radii)[:, None]
        o, d = (origins - solid.center) @ matrix.T, ways @ matrix.T
        a, b, c = (d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        for t in ((-b - root) / a, (-b + root) / a):
            p = origins + t[:, None] * ways
            hit = (b * b > a * c) & (t > 0) & (t < best)
            for normal, offset in solid.keep:
                hit &= p @ np.array(normal) >= offset
            found, best = np.where(hit, i, found), np.where(hit, t, best)
    return Met(found, best)


def colour_outside(shape: Shape, solids: list[Solid], points: Array, outward: Array) -> Array:
    """Return the colours [P, 3] in 0 .. 255 that are seen at points [P, 3] from outside, without light."""
    origins, ways = points + _START * outward, -outward
    met = first_met(solids, origins, ways)
    p = (origins + met.t.clip(max=10)[:, None] * ways).astype(np.float32)
    colors = np.array([s.color for s in solids], np.float32)[met.solid]
    colors[met.solid < 0] = shape.skin
    parts = np.where(met.solid < 0, -1, np.array([s.part for s in solids])[met.solid])
    paints = (
        (Part.FACE, painting._paint_face),
        (Part.BEARD, painting._paint_mouth),
        (Part.EYE, painting._paint_eyes),
    )
    for part, paint in paints:
        at = np.flatnonzero(parts == part)
        colors[at] = paint(shape, colors[at], p[at])
    for part, pattern in ((Part.HAIR, painting._strands), (Part.CURLS, painting._curls), (Part.BEARD, painting._curls)):
        at = np.flatnonzero(parts == part)
        mouth = painting._in_mouth(shape, p[at]) if part == Part.BEARD else False
        colors[at] *= np.where(mouth, np.float32(1), pattern(p[at]))[:, None]
    if shape.a["eyewear"] != "none":
        _lenses(shape, colors, origins, ways, met.t)
    return np.clip(colors, 0, 255)


def _lenses(s: Shape, colors: Array, origins: Array, ways: Array, t: Array) -> None:
    """Paint glasses where a ray crosses their plane from the front, before it meets anything else."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = (LENS_Z - origins[:, 2]) / ways[:, 2]
    before = (ways[:, 2] < 0) & (crossing > 0) & (crossing < t)
    x = origins[:, 0] + np.where(before, crossing, 0) * ways[:, 0]
    y = origins[:, 1] + np.where(before, crossing, 0) * ways[:, 1] - s.eye_y
    r = ((np.abs(x) - s.eye_x) / (LENS_X * 0.92)) ** 2 + (y / LENS_Y) ** 2
    bridge = (np.abs(x) < 0.03) & (np.abs(y - 0.012) < 0.009)
    if s.a["eyewear"] == "sunglasses":
        lens = before & (r < 1)
        colors[before & bridge & ~lens] = FRAME
        colors[lens] = LENS
        colors[lens & (np.abs(y - 0.022 + 0.35 * (np.abs(x) - s.eye_x)) < 0.007)] = (92, 96, 110)
    else:
        colors[before & (((r < 1.06) & (r > RIM**2 * 1.08)) | bridge)] = FRAME

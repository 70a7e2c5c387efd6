"""Positions of the miniature head's vertices for an identity, and the linear basis of all identities.

    v = v_template + sum_i beta_i shapedirs_i,  with weights beta of mean 0 and deviation 1

The basis are the principal components of random heads. As in a model made from scans, its directions have no names;
`shape_names` and `trait_dirs` give the weights of one unit of each named trait of the world.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.grid import Grid
from dreamportrait.miniworld.attributes import TRAITS, make_attributes
from dreamportrait.miniworld.caster import Solid
from dreamportrait.miniworld.faces import SCALE
from dreamportrait.miniworld.heads import Part, Shape, build

HEADS, SEED = 3000, 0
AMPLITUDE = 2.0  # times the traits of the world, so that the limits of the weights lie beyond its faces
MOST, SHARE = 16, 0.995  # components; share of the variance that is enough
# Radii of the lids, in radii of the eye. Vertices that move 60 degrees on a straight line clear the ball from 1.16 on.
LID_RADII = {1: 1.25, -1: 1.21}  # upper and lower; they overlap when they are closed
HIDDEN = 0.985  # lids at rest stay below the skin, at this share of its distance from the origin
SHAPE_TRAITS = ("head_width", "head_height", "jaw", "eye_spacing", "eye_size", "nose", "ears", "neck", "shoulders")
POUCH, TEETH = 0.055, 0.014  # depths behind the lips


class Basis(NamedTuple):
    mean: Array  # [V, 3] world units
    dirs: Array  # [V, 3, m]
    names: tuple[str, ...]
    trait_dirs: Array  # [traits, m] weights for one unit of each trait; gender: from the mean to a man


def shape_of(gender: str, traits: dict[str, float] | None = None) -> Shape:
    """Return a bald, bare head. Traits that are not given are 0."""
    values = np.zeros(len(TRAITS))
    for name, value in (traits or {}).items():
        values[TRAITS.index(name)] = value
    return Shape(make_attributes(gender="man", hair_style="bald") | {"gender": gender}, values)


def positions(shape: Shape, grid: Grid) -> Array:
    """Return the vertices [V, 3] of an identity at rest, in world units."""
    points = np.zeros((grid.count, 3))
    solids = build(shape)
    skin = [solid for solid in solids if solid.part in (Part.SKIN, Part.FACE)]
    ways = mesh.directions()
    head = ways * outermost(skin, ways)[:, None]
    points[grid.blocks["head"]] = head
    rows = head[:-2].reshape(mesh.ROWS, mesh.COLUMNS, 3)
    lip = rows[mesh.MOUTH_ROW]
    points[grid.blocks["lower_lip"]] = lip[mesh.mouth_columns(inner=True)]
    points[grid.blocks["pouch"]] = _pouch(lip[mesh.mouth_columns(inner=False)])
    points[grid.blocks["teeth"]] = _teeth(lip[mesh.mouth_columns(inner=True)])
    eyes = sorted((solid for solid in solids if solid.part == Part.EYE), key=lambda solid: solid.center[0])
    for side, eye in zip(("right", "left"), eyes, strict=True):  # of the head: its left is at positive x
        points[grid.blocks[f"{side}_eye"]] = _eye(eye)
        for lid, sign in (("upper", 1), ("lower", -1)):
            points[grid.blocks[f"{side}_{lid}_lid"]] = _below(skin, lid_positions(eye, sign, closed=False))
    shoulders, collar = (solid for solid in solids if solid.part == Part.CLOTHES)
    for name, solid, first, last in (("shoulders", shoulders, 2, 118), ("collar", collar, 25, 155)):
        rings = mesh.SHOULDER_RINGS if name == "shoulders" else mesh.COLLAR_RINGS
        points[grid.blocks[name]] = _rings(solid, np.radians(np.linspace(first, last, rings)))
    return points * SCALE


def outermost(solids: list[Solid], ways: Array) -> Array:  # [D, 3] -> [D]
    """Return how far the union of solids reaches from the origin in each direction."""
    reach = np.zeros(len(ways))
    for solid in solids:
        o, d = -np.array(solid.center) / solid.radii, ways / solid.radii
        a, b, c = (d * d).sum(1), d @ o, o @ o - 1
        disc = b * b - a * c
        far = (-b + np.sqrt(np.maximum(disc, 0))) / a
        reach = np.where((disc > 0) & (far > reach), far, reach)
    return reach


def _pouch(lips: Array) -> Array:  # [n, 3] -> [4 n, 3]
    """Return rows from the upper to the lower lip, behind the mouth. They meet at its corners."""
    inside = np.ones((len(lips), 1))
    inside[[0, -1]] = 0
    back = lips * (1 - inside * np.array([0.1, 0, 0])) - inside * np.array([0, 0, POUCH])
    lift = inside * np.array([0, 0.012, 0])
    return np.concatenate([lips, back + lift, back - lift, lips])


def _teeth(lips: Array) -> Array:  # [n, 3] -> [2 n, 3]
    """Return the upper and the lower edge of the teeth, an arch that ends before the corners of the mouth."""
    behind = lips * np.array([0.97, 1, 1]) - np.array([0, 0, TEETH])
    arch = np.sqrt(1 - np.linspace(-1, 1, len(lips)) ** 2)[:, None]
    upper = behind + np.array([0, 0.014, 0])
    return np.concatenate([upper, upper - arch * np.array([0, 0.018, 0])])


def _eye(eye: Solid) -> Array:
    """Return the front pole and the rings of an eye, counter-clockwise from the right of a viewer."""
    polar, turn = np.meshgrid(
        mesh.eye_rings(), np.arange(mesh.EYE_COLUMNS) * (2 * math.pi / mesh.EYE_COLUMNS), indexing="ij"
    )
    ball = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1).reshape(-1, 3)
    return np.array(eye.center) + np.array(eye.radii) * np.concatenate([[[0, 0, 1.0]], ball])


def lid_positions(eye: Solid, sign: int, closed: bool) -> Array:
    """Return a lid, the upper one (sign 1) or the lower one (-1): folded away above the eye, or closed over it."""
    edge, root = (-2.0, 57.0) if closed else (58.0, 112.0)  # elevations in degrees
    elevation = np.radians(np.linspace(root, edge, mesh.LID_ROWS))
    if sign < 0:
        elevation = -elevation[::-1]
    up, across = np.meshgrid(elevation, np.radians(np.linspace(-78, 78, mesh.LID_COLUMNS)), indexing="ij")
    # Meridians that meet at the corners of the eye, left and right.
    ball = np.stack([np.sin(across), np.cos(across) * np.sin(up), np.cos(across) * np.cos(up)], -1).reshape(-1, 3)
    return np.array(eye.center) + np.array(eye.radii) * LID_RADII[sign] * ball


def _below(skin: list[Solid], points: Array) -> Array:
    """Move points that are outside of the skin below it, towards the origin."""
    far = np.linalg.norm(points, axis=1, keepdims=True)
    return points * np.minimum(1, HIDDEN * outermost(skin, points / far)[:, None] / far)


def _rings(solid: Solid, polar: Array) -> Array:
    """Return rings around the vertical axis of a solid, from the top, starting behind."""
    angle = np.arange(mesh.BUST_COLUMNS) * (2 * math.pi / mesh.BUST_COLUMNS) - math.pi
    down, turn = np.meshgrid(polar, angle, indexing="ij")
    ball = np.stack([np.sin(down) * np.sin(turn), np.cos(down), np.sin(down) * np.cos(turn)], -1).reshape(-1, 3)
    return np.array(solid.center) + np.array(solid.radii) * ball


# The basis.


def random_shapes(count: int, seed: int) -> list[Shape]:
    """Return bald heads of both genders, in turn, with wide traits."""
    draws = np.random.Generator(np.random.PCG64(seed)).standard_normal((count, len(TRAITS)))
    wide = np.clip(draws, -2, 2) * AMPLITUDE
    attributes = {gender: shape_of(gender).a for gender in ("woman", "man")}
    return [Shape(attributes[("woman", "man")[i % 2]], traits) for i, traits in enumerate(wide)]


def learn(grid: Grid, heads: int = HEADS) -> Basis:
    """Return the basis of random heads, from the largest eigenvectors of the products of their differences."""
    samples = np.stack([positions(shape, grid).ravel() for shape in random_shapes(heads, SEED)])  # [n, 3 V]
    mean = samples.mean(0)
    samples -= mean
    gram = samples @ samples.T / heads
    variance, vectors = (found[..., ::-1] for found in np.linalg.eigh(gram))
    enough = min(MOST, int(np.searchsorted(np.cumsum(variance) / np.trace(gram), SHARE)) + 1)
    dirs = samples.T @ vectors[:, :enough] / math.sqrt(heads)  # [3 V, m]; a weight of 1 is one deviation
    dirs *= np.sign(dirs[np.abs(dirs).argmax(0), np.arange(dirs.shape[1])])  # signs are arbitrary: fix them
    names, traits = _trait_weights(grid, dirs)
    return Basis(mean.reshape(-1, 3), dirs.reshape(grid.count, 3, -1), names, traits)


def weights_of(points: Array, mean: Array, dirs: Array) -> Array:  # [V, 3], [V, 3], [V, 3, m] -> [m]
    """Return the weights whose head is closest to these vertices."""
    found: Array = np.linalg.lstsq(dirs.reshape(-1, dirs.shape[-1]), (points - mean).ravel(), rcond=None)[0]
    return found


def _trait_weights(grid: Grid, dirs: Array) -> tuple[tuple[str, ...], Array]:
    def across(more: Shape, less: Shape, units: float) -> Array:
        moved = (positions(more, grid) - positions(less, grid)).ravel() / units
        found: Array = np.linalg.lstsq(dirs, moved, rcond=None)[0]
        return found

    rows = [across(shape_of("man"), shape_of("woman"), 2.0)]
    for name in SHAPE_TRAITS:
        both = [across(shape_of(gender, {name: 2}), shape_of(gender, {name: -2}), 4.0) for gender in ("woman", "man")]
        rows.append((both[0] + both[1]) / 2)
    return ("gender", *SHAPE_TRAITS), np.stack(rows)

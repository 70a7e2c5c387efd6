"""Landmarks of a head, exact, in space and in the picture, with what hides them."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.attributes import Attributes
from dreamportrait.miniworld.caster import Camera, Solid
from dreamportrait.miniworld.faces import PLAIN, SCALE, Look
from dreamportrait.miniworld.heads import Shape

NAMES = (
    *("left eye", "right eye", "nose", "left mouth corner", "right mouth corner"),
    *("left ear", "right ear", "neck", "left shoulder", "right shoulder"),
)
_DEEP = 0.06  # a landmark below the surface by less than this, in units of the model, counts as seen


class Landmarks(NamedTuple):
    """Landmarks of the person, whatever a style puts in their place. Left and right are those of a viewer in front."""

    places: Array  # [10, 2] x and y in the picture, 0 .. 1 from its top left corner
    distances: Array  # [10] from the camera, in the units of Picture.depth
    seen: Array  # [10] bool: in the picture, and not hidden by another part of the head


def landmarks(attributes: Attributes, traits: Array, camera: Array, look: Look = PLAIN) -> Landmarks:
    """Return the landmarks of a head, in the order of NAMES. `camera` [25] is a label as that of `faces.render`."""
    shape = Shape(attributes, traits)
    solids = look.solids(shape)
    points = _points(shape)  # [10, 3]
    eye = Camera.from_label(np.asarray(camera), 1, SCALE)
    ways = points - eye.origin  # [10, 3]
    x, y, z = eye.axes @ ways.T  # each [10]
    k = np.asarray(camera)[16:].reshape(3, 3)
    places = np.stack([x / z * k[0, 0] + k[0, 2], y / z * k[1, 1] + k[1, 2]], 1)  # [10, 2]
    lengths = np.linalg.norm(ways, axis=1)
    before = _first(solids, eye.origin, ways / lengths[:, None]) < lengths - _DEEP
    return Landmarks(places, SCALE * lengths, (places > 0).all(1) & (places < 1).all(1) & ~before)


def _points(s: Shape) -> Array:  # [10, 3]
    """Return the landmarks on the surface of the plain solids."""
    corner = 0.075 * s.mouth_w
    return np.array(
        [
            *((-s.eye_x, s.eye_y, 0.215), (s.eye_x, s.eye_y, 0.215), (0, -0.062, 0.268)),
            *((-corner, s.mouth_y, 0.190), (corner, s.mouth_y, 0.190)),
            *((-s.w - 0.030, -0.02, -0.01), (s.w + 0.030, -0.02, -0.01), (0, -0.30, 0.06)),
            *((-0.26, -0.395, -0.03), (0.26, -0.395, -0.03)),
        ]
    )


def _first(solids: list[Solid], origin: Array, ways: Array) -> Array:  # [3], unit [P, 3] -> [P]
    """Return how far the rays go until they meet a solid; infinity if they meet none."""
    nearest = np.full(len(ways), np.inf)
    for solid in solids:
        cos, sin = np.cos(solid.roll), np.sin(solid.roll)
        matrix = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) / np.array(solid.radii)[:, None]
        o, d = matrix @ (origin - np.array(solid.center)), ways @ matrix.T  # [3], [P, 3]
        a, b, c = (d * d).sum(1), d @ o, o @ o - 1
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        for t in ((-b - root) / a, (-b + root) / a):
            hit = (b * b > a * c) & (t > 0) & (t < nearest)
            for normal, offset in solid.keep:
                hit &= (origin + t[:, None] * ways) @ np.array(normal) >= offset
            nearest = np.where(hit, t, nearest)
    return nearest

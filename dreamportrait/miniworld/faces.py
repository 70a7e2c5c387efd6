"""Exact rendering of procedural heads from any camera, with depth and mask, in a few milliseconds."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.attributes import Attributes, check_attributes
from dreamportrait.miniworld.caster import FAR, Camera, Hits, Solid, cast
from dreamportrait.miniworld.heads import FRAME, IRIS, LENS, Part, Shape, build

OVERSAMPLING = 2  # rays per pixel, in each direction
LIGHT = np.array([-0.40, 0.55, 0.73], np.float32)  # towards the light, which is fixed to the head and not to the camera
LENS_X, LENS_Y, LENS_Z = 0.082, 0.057, 0.258  # half width and half height of a lens; z of the plane of the lenses
SCALE = 0.76  # world length of one unit of the model, chosen so that hats fit into the view of EG3D's camera
RIM = 0.78  # share of the lens radius that is glass


class Picture(NamedTuple):
    image: Array  # [R, R, 3] uint8
    depth: Array  # [R, R] along the ray, 0 where only background is seen
    mask: Array  # [R, R] bool, True where the head covers at least half of the pixel


class Look(Protocol):
    """What a style changes in the drawing of a head. styles.py has the styles."""

    def solids(self, shape: Shape) -> list[Solid]:
        """Return the solids of the head. Changes of `shape`, such as its colours, hold for all that is drawn later."""

    def colors(self, shape: Shape, parts: Array, colors: Array, p: Array) -> Array:
        """Return the colours [P, 3] before lighting, from Parts [P], plain colours [P, 3] and places p [P, 3]."""

    def light(self, colors: Array, n: Array, d: Array) -> Array:
        """Return the lit colours [P, 3], from unit normals n [P, 3] and directions of rays d [P, 3]."""


class Plain:
    """The look of a head without a style."""

    def solids(self, shape: Shape) -> list[Solid]:
        return build(shape)

    def colors(self, shape: Shape, parts: Array, colors: Array, p: Array) -> Array:
        return colors

    def light(self, colors: Array, n: Array, d: Array) -> Array:
        return colors * (0.66 + 0.42 * lambert(n, d))[:, None]


PLAIN = Plain()


def lambert(n: Array, d: Array) -> Array:  # [P, 3], [P, 3] -> [P]
    """Return the cosine between normal and light, on the side of the surface that the rays d meet."""
    lit: Array = np.abs(n @ LIGHT) * (np.sign((n * d).sum(1)) * np.sign(n @ LIGHT) < 0)
    return lit


def render(
    attributes: Attributes, traits: Array, camera: Array, resolution: int = 64, look: Look = PLAIN
) -> Picture:  # traits [len(TRAITS)]
    """Render a head. `camera` [25] is a label as in `dreamportrait.geometry.cameras`."""
    check_attributes(attributes)
    if resolution < 1:
        raise ValueError(f"resolution={resolution}: must be positive")
    shape = Shape(attributes, traits)
    eye = Camera.from_label(np.asarray(camera), resolution * OVERSAMPLING, SCALE)
    solids = look.solids(shape)
    hits = cast(solids, eye)
    directions = eye.directions()  # [S, S, 3]
    image = np.empty_like(directions)
    image[:] = shape.background
    seen = hits.solid >= 0
    image[seen] = _shade(shape, solids, hits, eye, directions, seen, look)
    t = hits.t
    if shape.a["eyewear"] != "none":
        t = _paint_lenses(shape, image, t, eye, directions, look)
    return _reduce(image, t, SCALE * np.sqrt((directions**2).sum(-1)))


def _shade(
    shape: Shape, solids: list[Solid], hits: Hits, eye: Camera, directions: Array, seen: Array, look: Look
) -> Array:
    """Return the colours [P, 3] of the pixels that show a solid."""
    index, d = hits.solid[seen], directions[seen]  # [P], [P, 3]
    p = eye.origin.astype(np.float32) + hits.t[seen][:, None] * d
    centers = np.array([s.center for s in solids], np.float32)
    colors = np.array([s.color for s in solids], np.float32)
    parts = np.array([s.part for s in solids])[index]
    q = p - centers[index]
    n = np.einsum("pij,pj->pi", _metrics(solids)[index], q)
    n *= (1 / np.sqrt((n * n).sum(1)))[:, None]
    color = colors[index]
    for part, paint in ((Part.FACE, _paint_face), (Part.BEARD, _paint_mouth), (Part.EYE, _paint_eyes)):
        at = np.flatnonzero(parts == part)
        color[at] = paint(shape, color[at], p[at])
    for part, texture in ((Part.HAIR, _strands), (Part.CURLS, _curls), (Part.BEARD, _curls)):
        at = np.flatnonzero(parts == part)
        mouth = _in_mouth(shape, p[at]) if part == Part.BEARD else False
        color[at] *= np.where(mouth, np.float32(1), texture(p[at]))[:, None]
    return np.minimum(look.light(look.colors(shape, parts, color, p), n, d), 255)


def _metrics(solids: list[Solid]) -> Array:
    """Return a matrix for each solid, [K, 3, 3], with normal = matrix (p - center)."""
    out = np.zeros((len(solids), 3, 3), np.float32)
    for k, s in enumerate(solids):
        cos, sin = np.cos(s.roll), np.sin(s.roll)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        out[k] = turn.T @ np.diag(1 / np.square(s.radii)) @ turn
    return out


def _strands(p: Array) -> Array:
    return 1 + 0.13 * np.sin(60 * np.arctan2(p[:, 0], p[:, 2] + 0.3) + 8 * p[:, 1])


def _curls(p: Array) -> Array:
    return 1 + 0.16 * np.sin(75 * p[:, 0]) * np.sin(75 * p[:, 1]) * np.cos(60 * p[:, 2])


# Painting on surfaces, by position.


def _paint_face(s: Shape, color: Array, p: Array) -> Array:
    x, y, front = np.abs(p[:, 0]), p[:, 1], p[:, 2] > 0
    blush = front & ((x - 0.115) ** 2 + (y + 0.085) ** 2 < 0.042**2)
    color[blush] = color[blush] * 0.82 + np.array([38, 12, 14], np.float32)
    if s.a["age"] == "old":
        color[front & _wrinkles(s, x, y)] *= np.float32(0.55)
    thick = 0.018 if s.man else 0.009
    arch = s.brow_y - 2.6 * (x - s.eye_x) ** 2
    brow = front & (np.abs(y - arch) < thick) & (np.abs(x - s.eye_x) < 0.058)
    color[brow] = s.hair * np.float32(0.72)
    return _paint_mouth(s, color, p)


def _wrinkles(s: Shape, x: Array, y: Array) -> Array:
    forehead = (x < 0.105) & ((np.abs(y - 0.128 + 0.5 * x * x) < 0.0065) | (np.abs(y - 0.158 + 0.5 * x * x) < 0.0065))
    bags = (np.abs(x - s.eye_x) < 0.052) & (np.abs(y - (s.eye_y - 0.066) - 6 * (x - s.eye_x) ** 2) < 0.0075)
    folds = (np.abs(x - (0.048 + 0.55 * (-0.085 - y))) < 0.0085) & (y < -0.085) & (y > -0.165)
    return forehead | bags | folds


def _mouth(s: Shape, p: Array) -> tuple[Array, Array]:
    """Return a mask of the whole mouth, and one of the part inside the lips."""
    x, y = p[:, 0] / s.mouth_w, p[:, 1] - s.mouth_y
    front = p[:, 2] > 0
    grow = 0.006 if s.a["lipstick"] == "red" else 0.0
    if s.a["expression"] == "smile":
        top, bottom = 0.012 + 3.2 * x * x, -0.046 + 9.0 * x * x
        lips = (np.abs(x) < 0.098) & (y < top + 0.010 + grow) & (y > bottom - 0.012 - grow)
        return front & lips, front & (y < top) & (y > bottom) & (np.abs(x) < 0.088)
    if s.a["expression"] == "surprised":
        r = (x / 0.052) ** 2 + ((y + 0.018) / 0.062) ** 2
        return front & (r < 1 + 14 * grow), front & (r < 0.50)
    half = (0.0135 + grow) * (1 - (np.abs(x) / 0.075) ** 2)
    return front & (np.abs(y) < half), front & (np.abs(y) < 0.0035) & (np.abs(x) < 0.068)


def _in_mouth(s: Shape, p: Array) -> Array:
    return _mouth(s, p)[0]


def _paint_mouth(s: Shape, color: Array, p: Array) -> Array:
    lips, inside = _mouth(s, p)
    if s.a["lipstick"] == "red":
        paint = np.array([214, 16, 44], np.float32)
    else:
        paint = s.skin * np.array([0.78, 0.56, 0.56], np.float32)
    color[lips] = paint
    color[inside] = {"smile": (252, 250, 246), "surprised": (52, 10, 14)}.get(s.a["expression"], tuple(paint * 0.6))
    return color


def _paint_eyes(s: Shape, color: Array, p: Array) -> Array:
    x, y = np.abs(p[:, 0]) - s.eye_x, p[:, 1] - s.eye_y
    r = np.sqrt(x * x + y * y) / s.eye_size
    color[r < 0.031] = IRIS[s.a["eye_color"]]
    color[r < 0.0125] = (10, 8, 8)
    lid = y > (0.027 if s.man else 0.024) * s.eye_size
    color[lid] = s.skin * np.float32(0.86)
    line = 0.006 if s.man else 0.013  # lashes
    color[np.abs(y - 0.027 * s.eye_size) < line] = np.array([34, 22, 20], np.float32)
    return color


def _paint_lenses(s: Shape, image: Array, t: Array, eye: Camera, directions: Array, look: Look) -> Array:
    """Paint rims, bridge and dark lenses, which lie in a plane in front of the eyes. Return the new depth."""
    plane_t = ((LENS_Z - eye.origin[2]) / directions[..., 2]).astype(np.float32)
    x = eye.origin[0] + plane_t * directions[..., 0]
    y = eye.origin[1] + plane_t * directions[..., 1] - s.eye_y
    r = ((np.abs(x) - s.eye_x) / (LENS_X * 0.92)) ** 2 + (y / LENS_Y) ** 2
    before = (plane_t < t) & (plane_t > 0)
    bridge = (np.abs(x) < 0.03) & (np.abs(y - 0.012) < 0.009)
    if s.a["eyewear"] == "sunglasses":
        lens = before & (r < 1)
        image[lens] = LENS
        image[lens & (np.abs(y - 0.022 + 0.35 * (np.abs(x) - s.eye_x)) < 0.007)] = (92, 96, 110)
        new = lens | (before & bridge)
        image[before & bridge & ~lens] = FRAME
    else:
        new = before & (((r < 1.06) & (r > RIM**2 * 1.08)) | bridge)
        image[new] = FRAME
    p = eye.origin.astype(np.float32) + plane_t[new][:, None] * directions[new]  # [P, 3]
    image[new] = look.colors(s, np.full(len(p), Part.FRAME), image[new], p)
    return np.where(new, plane_t, t)


def _reduce(image: Array, t: Array, length: Array) -> Picture:
    """Average over the rays of each pixel; the depth is averaged over the rays that hit the head."""
    k = OVERSAMPLING
    size = len(t) // k

    def mean(values: Array) -> Array:
        return values.reshape(size, k, size, k, -1).mean((1, 3))

    hit = t < FAR
    covered = mean(hit.astype(np.float32))[..., 0]
    total = mean(np.where(hit, t * length, 0))[..., 0]
    depth = np.where(covered > 0, total / np.maximum(covered, 1e-6), 0)
    return Picture((mean(image) + 0.5).astype(np.uint8), depth.astype(np.float32), covered >= 0.5)

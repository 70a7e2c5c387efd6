"""Exact analytic ray casting of ellipsoids: the frontmost solid of each pixel, and its depth.

Pixel (x, y) of a pinhole camera at position o looks along d = x X + y Y + Z. In the space where a solid is the unit
sphere, that line is o' + t d', and |o' + t d'| = 1 is a quadratic equation A t^2 + 2 B t + C = 0 whose coefficients are
polynomials in x and y. A solid therefore costs a few additions per pixel of its bounding rectangle. The rectangle is
known, because the pixels whose discriminant B^2 - A C is not negative form an ellipse on the screen.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

FAR = np.float32(1e9)


class Solid(NamedTuple):
    """An ellipsoid, or the part of it where n . p >= k for each (n, k) of `keep`."""

    part: int  # a heads.Part; selects the shading
    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    color: Array  # [3] 0 .. 255
    roll: float = 0.0  # rotation about the z axis, radians
    keep: tuple[tuple[tuple[float, float, float], float], ...] = ()


@dataclass
class Camera:
    """A pinhole camera with `size` x `size` pixels, read from a label of 25 numbers."""

    origin: Array  # [3]
    axes: Array  # [3, 3] rows: right, down, forward
    x: Array  # [size] of the pixel columns, on the plane at depth 1
    y: Array  # [size] of the pixel rows

    @classmethod
    def from_label(cls, label: Array, size: int, scale: float = 1.0) -> "Camera":
        """Read a camera label. Positions are divided by `scale`, the world length of one unit of the solids."""
        matrix, k = label[:16].reshape(4, 4).astype(np.float64), label[16:].reshape(3, 3).astype(np.float64)
        centres = (np.arange(size) + 0.5) / size
        x, y = (centres - k[0, 2]) / k[0, 0], (centres - k[1, 2]) / k[1, 1]
        return cls(matrix[:3, 3] / scale, matrix[:3, :3].T.copy(), x.astype(np.float32), y.astype(np.float32))

    def directions(self) -> Array:
        """Return the directions of all pixels, [size, size, 3], each with depth 1."""
        X, Y, Z = self.axes.astype(np.float32)
        return self.x[None, :, None] * X + self.y[:, None, None] * Y + Z


class Hits(NamedTuple):
    solid: Array  # [R, R] index of the frontmost solid, -1 for none
    t: Array  # [R, R] depth of that solid along the camera's axis, FAR for none


def cast(solids: list[Solid], camera: Camera) -> Hits:
    """Return the frontmost solid of each pixel, and its depth."""
    size = len(camera.x)
    t = np.full((size, size), FAR, np.float32)
    index = np.full((size, size), -1, np.int16)
    for i, solid in enumerate(solids):
        _draw(i, solid, camera, t, index)
    return Hits(index, t)


def _draw(i: int, solid: Solid, camera: Camera, depth: Array, index: Array) -> None:
    (o, X, Y, Z), _ = to_unit_sphere(solid, camera)
    # disc = B^2 - A C as a symmetric form in (x, y, 1)
    b = np.array([o @ X, o @ Y, o @ Z])
    c = o @ o - 1
    axes = np.stack([X, Y, Z])
    a = axes @ axes.T
    q = np.outer(b, b) - c * a
    window = _window(q, camera)
    if window is None:
        return
    rows, columns = window
    x, y = camera.x[columns], camera.y[rows, None]
    disc = _form(q, x, y)
    root = np.sqrt(np.maximum(disc, 0))
    inverse = 1 / _form(a, x, y)
    middle = _line(-b, x, y)
    t = (middle - root) * inverse
    hit = disc > 0
    if solid.keep:
        near = hit & _kept(solid, camera, t, x, y)
        far_t = (middle + root) * inverse
        hit = near | (hit & _kept(solid, camera, far_t, x, y))
        t = np.where(near, t, far_t)
    hit &= t < depth[rows, columns]
    np.copyto(depth[rows, columns], t, where=hit)
    np.copyto(index[rows, columns], np.int16(i), where=hit)


def to_unit_sphere(solid: Solid, camera: Camera) -> tuple[tuple[Array, Array, Array, Array], Array]:
    """Return the camera in the space where the solid is the unit sphere, and the matrix [3, 3] of the transformation.

    The camera is given as its position and its three axes.
    """
    cos, sin = np.cos(solid.roll), np.sin(solid.roll)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    matrix = turn / np.array(solid.radii)[:, None]
    o = matrix @ (camera.origin - np.array(solid.center))
    X, Y, Z = (matrix @ axis for axis in camera.axes)
    return (o, X, Y, Z), matrix


def _form(q: Array, x: Array, y: Array) -> Array:
    """Return (x, y, 1) q (x, y, 1)^T over a grid."""
    q = q.astype(np.float32)
    column = (q[0, 0] * x + 2 * q[0, 2]) * x + q[2, 2]
    row = (q[1, 1] * y + 2 * q[1, 2]) * y
    return column + row + (2 * q[0, 1] * y) * x


def _line(b: Array, x: Array, y: Array) -> Array:
    b = b.astype(np.float32)
    return (b[0] * x + b[2]) + b[1] * y


def _window(q: Array, camera: Camera) -> tuple[slice, slice] | None:
    """Return the rows and columns that the ellipse q >= 0 covers, or None. The dual conic gives its extremes."""
    dual = np.linalg.inv(q)
    ranges = []
    for k, positions in ((1, camera.y), (0, camera.x)):
        spread = dual[k, 2] ** 2 - dual[k, k] * dual[2, 2]
        if spread <= 0:
            return None
        ends = (dual[k, 2] + np.array([-1, 1]) * np.sqrt(spread)) / dual[2, 2]
        first = int(np.searchsorted(positions, ends.min()))
        last = int(np.searchsorted(positions, ends.max()))
        if first >= last:
            return None
        ranges.append(slice(first, last))
    return ranges[0], ranges[1]


def _kept(solid: Solid, camera: Camera, t: Array, x: Array, y: Array) -> Array:
    """Return a mask of the pixels whose point at depth t lies in all half-spaces of `keep`."""
    kept = np.ones(t.shape, bool)
    for normal, offset in solid.keep:
        n = np.array(normal)
        kept &= t * _line(camera.axes @ n, x, y) >= np.float32(offset - n @ camera.origin)
    return kept

"""Joints of the miniature head: their places as means of vertices, and smooth weights of the vertices.

root is the bust, neck turns the head, jaw opens the mouth, and each eye turns in its place.
"""

import math

import numpy as np
from numpy import ndarray as Array

from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.grid import Grid
from dreamportrait.miniworld.faces import SCALE

JOINTS, PARENTS = ("root", "neck", "jaw", "leftEye", "rightEye"), (-1, 0, 1, 1, 1)
JAW_ANGLE = math.radians(20)  # of the wide open mouth


def smooth(x: Array, low: float, high: float) -> Array:
    """Return a ramp from 0 at `low` to 1 at `high`, with flat ends; `low` may be the larger one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    ramp: Array = t * t * (3 - 2 * t)
    return ramp


def jaw_ramp(grid: Grid, mean: Array) -> Array:  # [V]
    """Return how near each vertex is to the chin: 1 there, 0 at the ears, the nose and the neck."""
    x, y, z = (mean / SCALE).T
    ramp = np.zeros(grid.count)
    head = np.concatenate([grid.at("head"), grid.at("lower_lip")])
    front = smooth(np.arctan2(np.abs(x), z), math.radians(80), math.radians(35))  # the jaw ends before the ears
    below = smooth(y, -0.10, -0.175)
    throat = smooth(z, 0.05, 0.15)
    ramp[head] = (front * below * throat)[head]
    ramp[grid.at("pouch").reshape(4, -1)] = ramp[mouth_line(grid)]
    return ramp


def jaw_weights(grid: Grid, mean: Array) -> Array:  # [V]
    """Return how far each vertex follows the jaw: as the ramp, with the mouth opened to an ellipse."""
    follow = jaw_ramp(grid, mean)
    column = np.arange(-mesh.CORNER, mesh.CORNER + 1) / mesh.CORNER  # -1 and 1 at the corners
    half = 0.5 * np.sqrt(1 - column**2)
    lower, upper = 0.5 + half, 0.5 - half
    rows = grid.at("head")[:-2].reshape(mesh.ROWS, mesh.COLUMNS)[:, mesh.mouth_columns(inner=False)]
    follow[rows[: mesh.MOUTH_ROW]] = np.minimum(follow[rows[: mesh.MOUTH_ROW]], upper)
    follow[rows[mesh.MOUTH_ROW]] = upper
    follow[grid.at("lower_lip")] = lower[1:-1]
    chin = rows[mesh.MOUTH_ROW + 1 :][:2]
    follow[chin] = np.maximum(follow[chin], lower)
    pouch = grid.at("pouch").reshape(4, -1)
    follow[pouch] = upper, 0.7 * upper + 0.3 * lower, 0.3 * upper + 0.7 * lower, lower
    return follow


def mouth_line(grid: Grid) -> Array:
    """Return the vertices of the upper lip's edge from corner to corner."""
    rows = grid.at("head")[:-2].reshape(mesh.ROWS, mesh.COLUMNS)
    found: Array = rows[mesh.MOUTH_ROW, mesh.mouth_columns(inner=False)]
    return found


def skin_weights(grid: Grid, mean: Array) -> Array:  # [V, K]
    y = mean[:, 1] / SCALE
    weights = np.zeros((grid.count, len(JOINTS)))
    jaw = jaw_weights(grid, mean)
    neck = smooth(y, -0.36, -0.27)
    weights[:, 2] = jaw
    weights[:, 1] = (1 - jaw) * neck
    for name in ("pouch", "teeth"):
        weights[grid.at(name), 1] = 1 - jaw[grid.at(name)]
    for joint, side in ((3, "left"), (4, "right")):
        weights[grid.at(f"{side}_eye")] = np.eye(len(JOINTS))[joint]
    for name in ("shoulders", "collar"):
        weights[grid.at(name)] = 0
    weights[:, 0] = 1 - weights[:, 1:].sum(1)
    return weights


def regressor(grid: Grid) -> Array:  # [K, V]
    """Return the matrix that takes vertices to joints, rows of which sum to 1."""
    rows = grid.at("head")[:-2].reshape(mesh.ROWS, mesh.COLUMNS)
    ears = np.abs(np.abs(mesh.longitudes()) - math.radians(85)).argsort()[:4]
    height = int(np.abs(mesh.latitudes() - math.radians(-22)).argmin())
    low = int(np.abs(mesh.latitudes() - math.radians(-68)).argmin())
    rings = {name: grid.at(f"{name}_eye")[1:].reshape(mesh.EYE_RINGS, -1) for name in ("left", "right")}
    # The ring at a right angle to the axis of an eye is as wide as the ball, so that its mean is the middle.
    widest = int(np.abs(mesh.eye_rings() - math.pi / 2).argmin())
    chosen = (grid.at("collar"), rows[low], rows[height, ears], rings["left"][widest], rings["right"][widest])
    matrix = np.zeros((len(JOINTS), grid.count))
    for row, vertices in zip(matrix, chosen, strict=True):
        row[vertices] = 1 / len(vertices)
    return matrix


def turned(points: Array, center: Array, axis: tuple[float, float, float], angle: float) -> Array:
    """Return points [V, 3] turned around an axis of length 1 through `center`."""
    k = np.array(axis)
    q = points - center
    c, s = math.cos(angle), math.sin(angle)
    found: Array = center + q * c + np.cross(k, q) * s + np.outer(q @ k, k) * (1 - c)
    return found


def pose_dirs(grid: Grid, mean: Array, follow: Array) -> Array:  # [V, 3, 9 (K - 1)]
    """Return corrections for turned joints: the cheeks swell where an opening jaw would make them cave in.

    Only the entry R_yz of the jaw's rotation, minus the sine of its angle, has one.
    """
    dirs = np.zeros((grid.count, 3, 9 * (len(JOINTS) - 1)))
    half = 4 * follow * (1 - follow)  # largest where skin follows the jaw half way
    skin = np.zeros(grid.count)
    skin[grid.at("head")] = 1
    outward = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    dirs[:, :, 9 * 1 + 5] = -0.02 * SCALE * (half * skin)[:, None] * outward
    return dirs

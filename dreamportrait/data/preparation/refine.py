"""Fits the canonical head to the landmarks of a whole data set, and finds the pictures that do not fit.

Poses and head are improved in turn. Every landmark moves to where it fits the pictures best, tied to its mirrored
partner and, with the weight of PRIOR pictures, to its place on the canonical head. The result is moved back onto the
canonical head as a whole, so that the front of the face stays where it was.
"""

from dataclasses import replace

import numpy as np
from numpy import ndarray as Array

from dreamportrait.data.preparation import pose
from dreamportrait.data.preparation.crop import FOCAL
from dreamportrait.data.preparation.head import Head, similarity
from dreamportrait.data.preparation.pose import OUTLIER, PIVOT, RADIUS, Poses, solve_poses

ROUNDS, STEPS = 15, 5  # of the head, and of the poses in each round
PRIOR = 2.0  # pictures that the canonical head counts as much as
AT_LEAST = 20  # pictures that a head can be fitted to; with fewer, the canonical head is used
AT_MOST = 500  # pictures that the head is fitted to, spread evenly over the data set
CHUNK = 256  # pictures at a time
SPREAD = 6.0  # a picture farther from the median error than this many deviations does not fit
ALWAYS_FITS = 0.012  # errors below (6 pixels of 512) always fit


def refined_head(head: Head, points: Array) -> Head:  # landmarks [N, P, 2] in the crops
    """Return the head that fits the landmarks of a data set."""
    if len(points) < AT_LEAST:
        return head
    chosen = points[np.linspace(0, len(points) - 1, min(len(points), AT_MOST)).round().astype(int)]
    mirrored, shape = head.mirrored, head.points
    poses = None
    for _ in range(ROUNDS):
        poses = solve_in_chunks(chosen, shape, poses, STEPS)
        good = fits(poses.errors)
        moved = _moved(shape, head.points, mirrored, chosen[good], poses[good])
        scale, rotation, offset = similarity(moved, head.points, np.ones(len(moved)))
        shape = scale * moved @ rotation.T + offset
    return replace(head, points=shape)


def solve_in_chunks(points: Array, head: Array, start: Poses | None = None, steps: int = pose.STEPS) -> Poses:
    """Estimate poses of any number of pictures in a bounded amount of memory."""
    chunks = [slice(i, i + CHUNK) for i in range(0, len(points), CHUNK)]
    parts = [solve_poses(points[chunk], head, start and start[chunk], steps) for chunk in chunks]
    return Poses(*(np.concatenate(columns) for columns in zip(*(p.columns for p in parts), strict=True)))


def fits(errors: Array) -> Array:  # [N] -> [N] of bool
    """Return which pictures have an error that is usual for the data set."""
    middle = np.median(errors)
    deviation = 1.4826 * np.median(np.abs(errors - middle))
    return errors <= max(ALWAYS_FITS, middle + SPREAD * deviation)


def _moved(shape: Array, prior: Array, mirrored: Array, points: Array, poses: Poses) -> Array:
    """Return the head after one Gauss-Newton step of all landmarks, each with its partner."""
    placed = np.einsum("nij,pj->npi", poses.rotations, shape) + poses.offsets[:, None]  # [N, P, 3]
    depth = placed[..., 2:]
    residual = placed[..., :2] / depth - (points - 0.5) / FOCAL  # [N, P, 2]
    weight = 1 / (1 + (residual**2).sum(-1) * (FOCAL / OUTLIER) ** 2)
    r = poses.rotations[:, None]  # [N, 1, 3, 3]
    slope = (r[..., :2, :] - (placed[..., :2] / depth)[..., None] * r[..., 2:, :]) / depth[..., None]  # [N, P, 2, 3]
    weighted = slope * weight[..., None, None]
    pull = PRIOR / (RADIUS - PIVOT[2]) ** 2  # about the weight that as many pictures have
    normal = np.einsum("npki,npkj->pij", weighted, slope) + pull * np.eye(3)
    target = -np.einsum("npki,npk->pi", weighted, residual) + pull * (prior - shape)
    flip = np.diag([-1.0, 1.0, 1.0])
    normal = normal + flip @ normal[mirrored] @ flip
    target = target + target[mirrored] @ flip
    return shape + np.linalg.solve(normal, target[..., None])[..., 0]

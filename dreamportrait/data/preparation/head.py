"""A canonical head: where landmarks lie in the world of the camera labels.

The world is EG3D's: y up, the face looks along +z, one unit is about 38 cm, and the origin lies inside the head. It is
fixed by five points (eyes, tip of the nose, corners of the mouth) of the mean face that EG3D's labels were made with.
canonical.py measures the 468 points in head.json.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy import ndarray as Array

from dreamportrait.data.preparation.landmarks import ANCHORS, SCHEMES

# The five points in the units of Deep3DFaceRecon (Deng et al. 2019), and where EG3D puts them in its world.
MEAN_FACE = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032535, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)
WORLD_SCALE, WORLD_OFFSET = 0.27, np.array([0.0, 0.006, 0.161])
WORLD_ANCHORS = MEAN_FACE * WORLD_SCALE + WORLD_OFFSET  # [5, 3]
ANCHOR_WEIGHTS = np.array([1.0, 1.0, 1.0, 0.1, 0.1])  # the mean face is neutral, and a smile lifts the mouth's corners

# Points of iBUG's 68 that are also in the mesh, and stay where they are when the face moves.
_OF_68 = {36: 33, 39: 133, 42: 362, 45: 263, 27: 168, 28: 197, 29: 5, 30: 4, 31: 98, 33: 2, 35: 327}
_SUBNASALE = 2  # of the mesh: where the nose meets the upper lip


@dataclass(frozen=True)
class Head:
    """The landmarks of a scheme that poses are estimated from."""

    scheme: str
    numbers: tuple[int, ...]  # which landmarks of the scheme
    points: Array  # [P, 3] in the world

    @property
    def mirrored(self) -> Array:  # [P]
        """Return, for each point, the number of the point that mirrors it. A point in the middle mirrors itself."""
        flipped = self.points * [-1, 1, 1]
        return np.linalg.norm(flipped[:, None] - self.points[None], axis=-1).argmin(1)


@lru_cache
def canonical_head(scheme: str) -> Head:
    """Return the canonical head of a scheme of landmarks.

    Of the 468 only those above the mouth are used, because jaw and lips move.
    """
    if scheme == "points5":
        return Head(scheme, (0, 1, 2, 3, 4), WORLD_ANCHORS)
    mesh = mesh_points()
    if scheme == "points68":
        return Head(scheme, tuple(_OF_68), mesh[list(_OF_68.values())])
    if scheme == "mesh468":
        numbers = np.flatnonzero(mesh[:, 1] >= mesh[_SUBNASALE, 1])
        return Head(scheme, tuple(numbers.tolist()), mesh[numbers])
    raise ValueError(f"scheme={scheme!r}: must be one of {', '.join(SCHEMES)}")


@lru_cache
def mesh_points() -> Array:  # [468, 3]
    """Return all points of the mesh of the canonical head."""
    text = resources.files("dreamportrait.data.preparation").joinpath("head.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["points"])


def mesh_anchors(mesh: Array) -> Array:  # [468, 3] -> [5, 3]
    return np.stack([mesh[list(group)].mean(0) for group in ANCHORS["mesh468"]])


def similarity(source: Array, target: Array, weights: Array) -> tuple[float, Array, Array]:  # [P, 3], [P, 3], [P]
    """Return scale, rotation [3, 3] and offset [3] that move `source` onto `target` (Umeyama 1991)."""
    share = weights / weights.sum()
    middle, aim = share @ source, share @ target
    a, b = source - middle, target - aim
    u, strengths, vt = np.linalg.svd((b * share[:, None]).T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((strengths * signs).sum() / (share @ (a**2).sum(1)))
    return scale, rotation, aim - scale * rotation @ middle

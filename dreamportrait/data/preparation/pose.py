"""Head poses from landmarks: many perspective-n-point problems at once, robust to wrong landmarks.

A pose is a world-to-camera rotation and offset in OpenCV's axes (x right, y down, z forward). It minimises

    sum over landmarks of  rho(|projection - landmark|^2),    rho(s) = c^2 log(1 + s / c^2)   (Cauchy)

by Gauss-Newton steps with reweighting, from a weak-perspective start. All coordinates are normalised: 0 .. 1 across
the crop.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from dreamportrait.data.preparation.crop import FOCAL

STEPS = 30  # Gauss-Newton; they end earlier when no pose moves any more
OUTLIER = 0.01  # c: a landmark this far off (5 pixels of 512) counts half
LARGEST = 0.04  # distance that a landmark is counted with at most in the error of a pose
CONVERGED = 1e-6  # radians and units of the world
RADIUS = 2.7  # distance of all cameras from PIVOT
PIVOT = np.array([0.0, 0.0, 0.175])  # the point that EG3D's preparation measures the distance from


@dataclass(frozen=True)
class Poses:
    rotations: Array  # [N, 3, 3], world to camera
    offsets: Array  # [N, 3]
    errors: Array  # [N] root of the mean square distance of landmarks, each up to LARGEST, as a share of the crop

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        return self.rotations, self.offsets, self.errors

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, chosen: slice | Array) -> "Poses":
        return Poses(*(column[chosen] for column in self.columns))


def solve_poses(points: Array, head: Array, start: Poses | None = None, steps: int = STEPS) -> Poses:
    """Estimate the poses of heads [P, 3] or [N, P, 3] whose landmarks [N, P, 2] are seen by EG3D's camera.

    start: poses to improve; without it, weak perspective gives them.
    """
    heads = np.broadcast_to(head, (len(points), *head.shape[-2:]))
    seen = (points - 0.5) / FOCAL  # [N, P, 2] on the plane z = 1
    rotations, offsets = (start.rotations, start.offsets) if start else _weak_perspective(seen, heads)
    scale = OUTLIER / FOCAL
    for _ in range(steps):
        turned = heads @ rotations.swapaxes(1, 2)
        residual, jacobian = _linearised(turned, offsets, seen)
        weighted = (jacobian * _weights(residual, scale)[..., None, None]).reshape(len(points), -1, 6)
        normal = weighted.swapaxes(1, 2) @ jacobian.reshape(len(points), -1, 6)  # [N, 6, 6]
        slope = weighted.swapaxes(1, 2) @ residual.reshape(len(points), -1, 1)  # [N, 6, 1]
        step = -np.linalg.solve(normal, slope)[..., 0]
        rotations = _turn(step[:, :3]) @ rotations
        offsets = offsets + step[:, 3:]
        if np.abs(step).max() < CONVERGED:
            break
    residual = _linearised(heads @ rotations.swapaxes(1, 2), offsets, seen)[0]
    squared = np.minimum((residual**2).sum(-1), (LARGEST / FOCAL) ** 2)
    errors = FOCAL * np.sqrt(squared.mean(1))
    return Poses(rotations, offsets, errors)


def _weights(residual: Array, scale: float) -> Array:  # [N, P, 2] -> [N, P]
    return 1 / (1 + (residual**2).sum(-1) / scale**2)


def _linearised(turned: Array, offsets: Array, seen: Array) -> tuple[Array, Array]:
    """Return projection minus landmark [N, P, 2], and its derivative [N, P, 2, 6] by a small turn and a move."""
    x, y, z = np.moveaxis(turned, -1, 0)  # of the head, turned only: [N, P] each
    placed = turned + offsets[:, None]
    far = 1 / placed[..., 2]
    u, v = placed[..., 0] * far, placed[..., 1] * far
    zero = np.zeros_like(far)
    rows = [
        [-u * y * far, (z + u * x) * far, -y * far, far, zero, -u * far],
        [-(z + v * y) * far, v * x * far, x * far, zero, far, -v * far],
    ]
    jacobian = np.stack([np.stack(row, -1) for row in rows], -2)
    return np.stack([u, v], -1) - seen, jacobian


def _weak_perspective(seen: Array, heads: Array) -> tuple[Array, Array]:
    """Return rotations and offsets of heads that are assumed to have no depth in comparison with their distance."""
    middle, centre = heads.mean(1, keepdims=True), seen.mean(1, keepdims=True)
    rows = np.linalg.pinv(heads - middle) @ (seen - centre)  # [N, 3, 2]
    u, sizes, vt = np.linalg.svd(rows.swapaxes(1, 2), full_matrices=False)  # of [N, 2, 3]
    two = u @ vt  # the closest pair of orthogonal unit rows
    third = np.cross(two[:, 0], two[:, 1])
    rotations = np.concatenate([two, third[:, None]], 1)
    depth = 1 / sizes.mean(1)  # pixels shrink with the distance
    place = np.concatenate([centre[:, 0] * depth[:, None], depth[:, None]], 1)
    return rotations, place - np.einsum("nij,nj->ni", rotations, middle[:, 0])


def _cross(vectors: Array) -> Array:  # [..., 3] -> [..., 3, 3], so that _cross(v) @ w = v x w
    zero = np.zeros(vectors.shape[:-1])
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)


def _turn(vectors: Array) -> Array:  # [N, 3] -> [N, 3, 3]
    """Return rotations about axes by the lengths of the vectors (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    safe = np.maximum(angle, 1e-12)
    k = _cross(vectors) / safe
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def to_labels(poses: Poses) -> Array:  # [N, 25]
    """Return camera labels. Cameras keep their directions from PIVOT, at the distance RADIUS, as EG3D's."""
    centres = -np.einsum("nji,nj->ni", poses.rotations, poses.offsets)
    return make_labels(poses.rotations.swapaxes(1, 2), centres)


def make_labels(rotations: Array, centres: Array) -> Array:
    """Return labels [N, 25] of camera-to-world rotations [N, 3, 3] and camera positions [N, 3], moved to RADIUS."""
    away = centres - PIVOT
    matrix = np.tile(np.eye(4), (len(rotations), 1, 1))
    matrix[:, :3, :3] = rotations
    matrix[:, :3, 3] = PIVOT + RADIUS * away / np.linalg.norm(away, axis=1, keepdims=True)
    intrinsics = np.array([FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1])
    return np.concatenate([matrix.reshape(-1, 16), np.tile(intrinsics, (len(matrix), 1))], 1)


def angles(labels: Array) -> Array:  # [N, 25] -> [N, 3]
    """Return yaw, pitch and roll of cameras in degrees.

    Yaw and pitch are those of `geometry.cameras.orbit`: 0 at the front, positive to the right and above. Roll is the
    angle by which the head is turned clockwise in the picture.
    """
    matrix = labels[:, :16].reshape(-1, 4, 4)
    x, y, z = -matrix[:, :3, 2].T  # from the scene to the camera
    right, down = matrix[:, :3, 0], matrix[:, :3, 1]
    yaw, pitch = np.arctan2(x, z), np.arcsin(np.clip(y, -1, 1))
    roll = np.arctan2(right[:, 1], -down[:, 1])
    return np.degrees(np.stack([yaw, pitch, roll], 1))


def project(labels: Array, points: Array) -> Array:  # [N, 25], [P, 3] or [N, P, 3] -> [N, P, 2], 0 .. 1
    """Return where points of the world lie in the crops."""
    matrix, k = labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)
    points = np.broadcast_to(points, (len(labels), *points.shape[-2:]))
    placed = (points - matrix[:, None, :3, 3]) @ matrix[:, :3, :3]
    image = placed @ k.swapaxes(1, 2)
    return image[..., :2] / image[..., 2:]


def rotation_error(a: Array, b: Array) -> Array:  # [N, 25] each -> [N] degrees
    """Return the angles of the rotations between cameras."""
    between = a[:, :16].reshape(-1, 4, 4)[:, :3, :3].swapaxes(1, 2) @ b[:, :16].reshape(-1, 4, 4)[:, :3, :3]
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return np.array([math.degrees(math.acos(c)) for c in cosine.clip(-1, 1)])

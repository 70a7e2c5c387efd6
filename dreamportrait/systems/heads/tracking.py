"""Finds the expressions and the turns of a head from landmarks of a filmed face, frame by frame.

Gauss-Newton minimises, over the expression psi, the turns of neck and jaw, and a shift of the whole head,

    |landmarks - seen|^2 / NOISE^2 + |psi|^2 / SPREAD^2 + |psi - psi of the frame before|^2 / CHANGE^2

where psi stays within the limits of its kind. Landmarks in a picture are compared in the picture, in shares of its
width; landmarks in space are first moved, turned and scaled to the head as a whole. The identity of the filmed person
is estimated from a few frames, so that it is not taken for an expression.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.meshes import to_screen
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.arkit import NAMES
from dreamportrait.systems.heads.landmarks import landmarks
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import joints, posed, to_world

NOISE = 1 / 512  # of a landmark, in widths of the picture; in space, in the world's units
SPREAD, CHANGE = 0.3, 0.1  # of expressions, and between frames
SHIFT, IDENTITY = 0.1, 1.0  # of the whole head in the world's units; of weights of the identity
LIKENESS = 8 * NOISE  # of landmarks for the identity: no weights are exactly the filmed person
ROUNDS, ENOUGH = 4, 0.02  # Gauss-Newton steps of a frame at most; a smaller step is the last
ALTERNATIONS, SHOTS = 3, 12  # rounds and frames for the identity
_STEP = 1e-5  # of the differences that give derivatives; in float64 their error is about as large


@dataclass(frozen=True, eq=False)
class Followed:
    track: Track
    beta: Tensor  # [m] the identity of the filmed person
    error: float  # of landmarks, root mean square, in widths of the picture or units of the world


class _Face:
    """The landmarks of a model as a function of one vector x a frame: expressions, turns, shift."""

    def __init__(self, model: HeadModel, flat: bool) -> None:
        self.model, self.flat = _reduced(model), flat
        named = set(model.expr_names) <= set(NAMES)
        self.low, self.high = (0.0, 1.0) if named else (-3.0, 3.0)  # ARKit's weights, or standard deviations
        turning = ("neck",) if "jawOpen" in model.expr_names else ("neck", "jaw")
        self.turning = [name for name in turning if name in model.joint_names]
        self.camera = orbit([0.0], 0.0, RADIUS, (0.0, 0.0, 0.0)).double()
        e, k = model.num_expressions, 3 * len(self.turning)
        self.psi, self.turns, self.shift = slice(0, e), slice(e, e + k), slice(e + k, e + k + 3)
        self.size = e + k + 3
        spread = [SPREAD] * e + [1.0] * k + [SHIFT] * 3  # turns are in radians
        change = [CHANGE] * e + [0.5] * k + [SHIFT] * 3
        self.prior, self.inertia = (1 / torch.tensor(v, dtype=torch.float64) ** 2 for v in (spread, change))

    def seen(self, beta: Tensor, x: Tensor) -> Tensor:  # [m] or [N, m], [N, P] -> [N, L * C]
        """Return where landmarks are: in the picture, or in the world."""
        theta = x.new_zeros(len(x), self.model.num_joints, 3)
        for i, name in enumerate(self.turning):
            theta[:, self.model.joint(name)] = x[:, self.turns][:, 3 * i : 3 * i + 3]
        rigged = theta if self.model.num_joints else None
        vertices = posed(self.model, beta.expand(len(x), -1), x[:, self.psi], rigged)
        points = to_world(self.model, landmarks(self.model, vertices)) + x[:, None, self.shift]
        if self.flat:
            points = to_screen(points, self.camera.expand(len(x), -1), 1)[..., :2]
        return points.flatten(1)

    def solve(self, beta: Tensor, x: Tensor, seen: Tensor, before: Tensor | None) -> Tensor:  # [P], [L * C] -> [P]
        """Return x of one frame by Gauss-Newton from a start. before: the frame before, which it stays near."""
        for _ in range(ROUNDS):
            there = self.seen(beta, torch.cat([x[None], x + _STEP * torch.eye(self.size, dtype=x.dtype)]))
            slope = ((there[1:] - there[0]) / _STEP).T  # [L * C, P]
            weight, pull = self.prior, -self.prior * x
            if before is not None:
                weight, pull = weight + self.inertia, pull + self.inertia * (before - x)
            system = slope.T @ slope / NOISE**2 + torch.diag(weight)
            moved = x + torch.linalg.solve(system, slope.T @ (seen - there[0]) / NOISE**2 + pull)
            moved = torch.cat([moved[self.psi].clamp(self.low, self.high), moved[self.turns.start :]])
            x, step = moved, float((moved - x).abs().max())
            if step < ENOUGH:
                break
        return x

    def identity(self, beta: Tensor, x: Tensor, seen: Tensor) -> Tensor:  # [m], [N, P], [N, L * C] -> [m]
        """Return the weights of the identity that suit several frames, by one Gauss-Newton step."""
        there = self.seen(beta, x)
        slopes = [
            (self.seen(beta + _STEP * unit, x) - there) / _STEP for unit in torch.eye(len(beta), dtype=beta.dtype)
        ]
        slope = torch.stack(slopes, -1).flatten(0, 1)  # [N * L * C, m]
        system = slope.T @ slope / LIKENESS**2 + torch.eye(len(beta), dtype=beta.dtype) / IDENTITY**2
        pull = slope.T @ (seen - there).flatten() / LIKENESS**2 - beta / IDENTITY**2
        return beta + torch.linalg.solve(system, pull)


def follow(
    model: HeadModel,
    seen: Array,  # [T, L, 2] in widths of a square picture from its upper left corner, or [T, L, 3] in space
    times: Array,  # [T] seconds
    beta: Tensor | None = None,  # [m] the identity, if it is known
) -> Followed:
    """Find expressions and turns from landmarks in the order of the model's."""
    if not model.num_expressions:
        raise ValueError(f"head model {model.name!r} has no expressions, so that it cannot follow landmarks")
    marks = 0 if model.landmark_faces is None else len(model.landmark_faces)
    if seen.ndim != 3 or seen.shape[1] != marks or seen.shape[2] not in (2, 3) or not len(seen):
        raise ValueError(f"landmarks have shape {list(seen.shape)}, must be [T, {marks}, 2 or 3] for {model.name!r}")
    if not np.isfinite(seen).all():
        row = int(np.argwhere(~np.isfinite(seen))[0][0])
        raise ValueError(f"landmarks of frame {row} hold NaN or infinite numbers; leave such frames out")
    face = _Face(model, flat=seen.shape[2] == 2)
    given = torch.from_numpy(seen if face.flat else _aligned(face, seen)).double().flatten(1)
    known = _estimated(face, given) if beta is None else beta.double()
    x, found = torch.zeros(face.size, dtype=torch.float64), []
    for i, frame in enumerate(given):
        x = face.solve(known, x, frame, x if i else None)
        found.append(x)
    rows = torch.stack(found)
    error = float((face.seen(known, rows) - given).square().mean().sqrt())
    return Followed(_track(face, times, rows.numpy()), known.float(), error)


def _estimated(face: _Face, seen: Tensor) -> Tensor:  # [T, L * C] -> [m]
    """Return the identity, from a few frames."""
    shots = seen[torch.linspace(0, len(seen) - 1, min(SHOTS, len(seen))).round().long()]
    beta = torch.zeros(face.model.num_shapes, dtype=torch.float64)
    rows = torch.zeros(len(shots), face.size, dtype=torch.float64)
    for _ in range(ALTERNATIONS):
        rows = torch.stack([face.solve(beta, x, shot, None) for x, shot in zip(rows, shots, strict=True)])
        beta = face.identity(beta, rows, shots)
    return beta


def _aligned(face: _Face, seen: Array) -> Array:  # [T, L, 3]
    """Return landmarks moved, turned and scaled as a whole, so that their mean suits the mean head best."""
    start = torch.zeros(1, face.size, dtype=torch.float64)
    wanted = face.seen(torch.zeros(face.model.num_shapes, dtype=torch.float64), start)[0].reshape(-1, 3).numpy()
    mean = seen.mean(0)
    a, b = mean - mean.mean(0), wanted - wanted.mean(0)
    u, size, v = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ v))])
    turn = u @ sign @ v
    if not (spread := (a**2).sum()) > 0:
        raise ValueError("all landmarks are at the same place")
    found: Array = (size * sign.diagonal()).sum() / spread * (seen - mean.mean(0)) @ turn.T + wanted.mean(0)
    return found


def _track(face: _Face, times: Array, rows: Array) -> Track:  # [T], [T, P]
    weights = {name: rows[:, i] for i, name in enumerate(face.model.expr_names)}
    turns = rows[:, face.turns]
    return Track(times, weights, {name: turns[:, 3 * i : 3 * i + 3] for i, name in enumerate(face.turning)})


def _reduced(model: HeadModel) -> HeadModel:
    """Return the part of a model that its landmarks need, in float64, with joints that need no other vertices."""
    assert model.landmark_faces is not None and model.landmark_shares is not None
    corners = model.faces[model.landmark_faces]  # [L, 3]
    kept, index = torch.unique(corners, return_inverse=True)
    places = joints(model, torch.zeros(1, model.num_shapes))[0] if model.parents else None
    dirs = None
    if places is not None:
        dirs = joints(model, torch.eye(model.num_shapes)) - places  # [m, K, 3]: joints are linear in the shape

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[kept].double()

    return replace(
        model,
        v_template=model.v_template[kept].double(),
        shapedirs=model.shapedirs[kept].double(),
        exprdirs=rows(model.exprdirs),
        posedirs=rows(model.posedirs),
        weights=rows(model.weights),
        faces=index.reshape(-1, 3),
        joint_regressor=None,
        joint_template=None if places is None else places.double(),
        joint_dirs=None if dirs is None else dirs.double(),
        landmark_faces=torch.arange(len(corners)),
        landmark_shares=model.landmark_shares.double(),
        uv=None,
        uv_faces=None,
        mean_texture=None,
        parts=None,
        part_names=(),
    )

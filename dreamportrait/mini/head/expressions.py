"""The 52 expressions of the miniature head, in ARKit's names, as displacements of its vertices.

Each is a few smooth masks on the face times directions. Left and right are those of the head, as ARKit has them: the
head's left is at positive x, on the right of a viewer who looks at the face.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray as Array

from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.basis import lid_positions, shape_of
from dreamportrait.mini.head.grid import Grid
from dreamportrait.mini.head.rig import JAW_ANGLE, jaw_ramp, jaw_weights, mouth_line, regressor, smooth, turned
from dreamportrait.miniworld.faces import SCALE
from dreamportrait.miniworld.heads import Part, build
from dreamportrait.systems.heads.arkit import NAMES, SIDES

EYE_ANGLE = math.radians(20)  # of a full look aside


class Face:
    """The mean head in the units of miniworld.heads, with masks of its regions."""

    def __init__(self, grid: Grid, mean: Array) -> None:
        self.grid, self.points = grid, mean / SCALE
        self.x, self.y, self.z = self.points.T
        self.jaw, self.chin = jaw_weights(grid, mean), jaw_ramp(grid, mean)
        self.joints = regressor(grid) @ self.points
        self.outer = np.zeros(grid.count)  # 1 on the skin of the head
        self.outer[grid.at("head")] = self.outer[grid.at("lower_lip")] = 1
        rows = grid.at("head")[:-2].reshape(mesh.ROWS, mesh.COLUMNS)
        self.upper = np.zeros(grid.count)  # 1 on the skin above the mouth's line, and on the upper lip
        self.upper[rows[: mesh.MOUTH_ROW + 1]] = 1
        self.upper[grid.at("head")[-2]] = 1
        pouch = grid.at("pouch").reshape(4, -1)
        self.lips = self.near(0, -0.148, 0.10, 0.045)  # both lips with the edges of the pouch behind them
        self.lips[pouch] = self.lips[mouth_line(grid)] * np.array([1, 0, 0, 1])[:, None]
        self.lips[pouch[:, [0, -1]]] = self.lips[pouch[0, [0, -1]]]
        self.is_upper = self.upper.copy()
        self.is_upper[pouch[0]] = 1
        self.eyes = {solid.center[0] > 0: solid for solid in build(shape_of("man")) if solid.part == Part.EYE}

    def near(self, x: float, y: float, across: float, along: float) -> Array:
        """Return a mask of the front of the skin around a place: 1 there, 0 beyond the given distances."""
        far = np.sqrt(((self.x - x) / across) ** 2 + ((self.y - y) / along) ** 2)
        mask: Array = self.outer * (self.z > 0) * smooth(far, 1, 0)
        return mask

    def moved(self, mask: Array, x: float = 0, y: float = 0, z: float = 0) -> Array:
        found: Array = mask[:, None] * np.array([x, y, z])
        return found

    def lid(self, left: bool, lid: str, share: float) -> Array:
        """Return the displacement that closes a lid by a share."""
        out = np.zeros_like(self.points)
        vertices = self.grid.at(f"{'left' if left else 'right'}_{lid}_lid")
        closed = lid_positions(self.eyes[left], 1 if lid == "upper" else -1, closed=True)
        out[vertices] = share * (closed - self.points[vertices])
        return out

    def widened(self, left: bool, grown: float) -> Array:
        """Return the displacement that makes an eye larger."""
        out = np.zeros_like(self.points)
        vertices = self.grid.at(f"{'left' if left else 'right'}_eye")
        out[vertices] = grown * (self.points[vertices] - self.joints[3 if left else 4])
        return out

    def look(self, left: bool, axis: tuple[float, float, float], angle: float) -> Array:
        out = np.zeros_like(self.points)
        vertices = self.grid.at(f"{'left' if left else 'right'}_eye")
        center = self.joints[3 if left else 4]
        out[vertices] = turned(self.points[vertices], center, axis, angle) - self.points[vertices]
        return out


def dirs(grid: Grid, mean: Array) -> Array:  # [V, 3, 52]
    """Return the displacements of all expressions, in world units. Those without a rule are zero."""
    face = Face(grid, mean)
    found = np.zeros((grid.count, 3, len(NAMES)))
    for i, name in enumerate(NAMES):
        left = name.endswith("Left")
        stem = name.removesuffix("Left").removesuffix("Right") if name not in _MIDDLE else name
        rule = _MIDDLE.get(name)
        one_side = _SIDED.get(stem)
        if rule is not None:
            found[:, :, i] = rule(face)
        elif one_side is not None:
            found[:, :, i] = one_side(face, left)
    return found * SCALE


def empty_names() -> tuple[str, ...]:
    """Return the expressions that move nothing on this head."""
    sided = {f"{stem}{side}" for stem in _SIDED for side in SIDES}
    return tuple(name for name in NAMES if name not in _MIDDLE and name not in sided)


def _jaw_open(f: Face) -> Array:
    opened: Array = f.jaw[:, None] * (turned(f.points, f.joints[2], (1, 0, 0), JAW_ANGLE) - f.points)
    return opened


def _mouth_close(f: Face) -> Array:
    """Bring the lips together again, while jawOpen parts them."""
    opened, upper, lower = _jaw_open(f), mouth_line(f.grid), f.grid.at("pouch").reshape(4, -1)[3]
    gap = opened[lower] - opened[upper]  # [n, 3]; none at the corners
    wide = np.stack([np.interp(f.x, f.x[upper], gap[:, k], 0, 0) for k in range(3)], 1)
    line = np.interp(f.x, f.x[upper], f.y[upper])
    near = f.outer * (f.z > 0) * smooth(np.abs(f.y - line), 0.10, 0.0)
    pouch = f.grid.at("pouch").reshape(4, -1)
    near[pouch[[0, 3]]] = near[upper]
    return near[:, None] * wide * np.where(f.is_upper, 0.4, -0.6)[:, None]


def _corner(f: Face, left: bool, x: float, y: float, z: float) -> Array:
    """Move a corner of the mouth, and the cheek beside it less."""
    side = 1 if left else -1
    mask = f.near(side * 0.075, -0.148, 0.075, 0.085)
    mask[f.grid.at("pouch").reshape(4, -1)] = mask[mouth_line(f.grid)]
    return f.moved(mask, side * x, y, z)


def _lip(f: Face, mask: Array, upper: bool, y: float, z: float) -> Array:
    return f.moved(mask * (f.is_upper if upper else 1 - f.is_upper), y=y, z=z)


def _pucker(f: Face, narrow: float, forward: float, open_: float) -> Array:
    out = f.moved(f.lips, z=forward)
    out[:, 0] -= f.lips * f.x * narrow
    out[:, 1] += f.lips * (2 * f.is_upper - 1) * open_
    return out


def _brow(f: Face, x: float, y: float) -> Array:
    return f.moved(f.near(x, 0.082, 0.075, 0.065), y=y)


_MIDDLE: dict[str, Callable[[Face], Array]] = {
    "jawOpen": _jaw_open,
    "jawForward": lambda f: f.moved(f.chin, z=0.02),
    "jawLeft": lambda f: f.moved(f.chin, x=0.025),
    "jawRight": lambda f: f.moved(f.chin, x=-0.025),
    "mouthClose": _mouth_close,
    "mouthFunnel": lambda f: _pucker(f, 0.35, 0.018, 0.012),
    "mouthPucker": lambda f: _pucker(f, 0.5, 0.024, 0.0),
    "mouthLeft": lambda f: f.moved(f.lips, x=0.022),
    "mouthRight": lambda f: f.moved(f.lips, x=-0.022),
    "mouthRollLower": lambda f: _lip(f, f.lips, False, 0.004, -0.012),
    "mouthRollUpper": lambda f: _lip(f, f.lips, True, -0.004, -0.012),
    "mouthShrugLower": lambda f: _lip(f, f.lips, False, 0.012, 0.008),
    "mouthShrugUpper": lambda f: _lip(f, f.lips, True, 0.012, 0.006),
    "browInnerUp": lambda f: _brow(f, 0.035, 0.02) + _brow(f, -0.035, 0.02),
    "cheekPuff": lambda f: (
        f.moved(f.near(0.115, -0.12, 0.08, 0.08), 0.022, 0, 0.015)
        + f.moved(f.near(-0.115, -0.12, 0.08, 0.08), -0.022, 0, 0.015)
    ),
}
_SIDED: dict[str, Callable[[Face, bool], Array]] = {
    "eyeBlink": lambda f, left: f.lid(left, "upper", 1.0) + f.lid(left, "lower", 1.0),
    "eyeSquint": lambda f, left: f.lid(left, "upper", 0.25) + f.lid(left, "lower", 0.5),
    "eyeWide": lambda f, left: f.widened(left, 0.12) + _brow(f, 0.084 if left else -0.084, 0.006),
    "eyeLookDown": lambda f, left: f.look(left, (1, 0, 0), EYE_ANGLE),
    "eyeLookUp": lambda f, left: f.look(left, (1, 0, 0), -EYE_ANGLE),
    "eyeLookIn": lambda f, left: f.look(left, (0, 1, 0), -EYE_ANGLE if left else EYE_ANGLE),
    "eyeLookOut": lambda f, left: f.look(left, (0, 1, 0), EYE_ANGLE if left else -EYE_ANGLE),
    "mouthSmile": lambda f, left: _corner(f, left, 0.018, 0.030, -0.006),
    "mouthFrown": lambda f, left: _corner(f, left, 0.006, -0.030, -0.002),
    "mouthDimple": lambda f, left: _corner(f, left, 0.014, 0.004, -0.012),
    "mouthStretch": lambda f, left: _corner(f, left, 0.026, -0.006, -0.008),
    "mouthPress": lambda f, left: _corner(f, left, 0.0, 0.004, -0.008),
    "mouthLowerDown": lambda f, left: _lip(f, _half(f, left), False, -0.022, 0.0),
    "mouthUpperUp": lambda f, left: _lip(f, _half(f, left), True, 0.018, 0.0),
    "browDown": lambda f, left: _brow(f, 0.07 if left else -0.07, -0.020),
    "browOuterUp": lambda f, left: _brow(f, 0.115 if left else -0.115, 0.022),
    "cheekSquint": lambda f, left: f.moved(f.near(0.11 if left else -0.11, -0.07, 0.07, 0.06), y=0.016, z=0.006),
    "noseSneer": lambda f, left: f.moved(f.near(0.03 if left else -0.03, -0.075, 0.045, 0.06), y=0.016, z=0.002),
}


def _half(f: Face, left: bool) -> Array:
    mask: Array = f.lips * smooth(f.x if left else -f.x, -0.03, 0.03)
    return mask

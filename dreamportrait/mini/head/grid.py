"""The mesh of the miniature head: vertices with a meaning that every identity shares, faces, and places in the atlas.

    head       a grid of directions from the middle of the head, 48 columns around and 32 rows from top to bottom
    lower lip  copies of the vertices of the mouth's row between its corners, for the rows below
    pouch      two strips behind the lips; teeth: a strip behind the upper lip
    eyes       rings around each eye's axis; lids: two caps of larger radius over each eye, hidden at rest
    bust       shoulders and collar

Lengths are those of miniworld.heads; basis.py places the vertices. Faces are counter-clockwise from outside.

The atlas has 64 x 64 texels: the head on the upper 48 rows; below it two eyes, the bust and the mouth, side by side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray as Array

COLUMNS, ROWS = 48, 32
TOP, BOTTOM = math.radians(83), math.radians(-77)  # latitudes of the first and the last row
# How dense columns and rows are, up to an angle in degrees: from the front backwards, and downwards from the horizon.
AROUND = ((45, 2.0), (72, 0.9), (105, 1.5), (180, 0.5))
DOWN = ((-30, 1.0), (46, 2.2), (90, 1.0))
MOUTH = math.radians(-35.6)
CORNER = 5  # the corners of the mouth are so many columns from the middle
EYE_RINGS, EYE_COLUMNS, EYE_LAST = 8, 16, math.radians(110)
LID_ROWS, LID_COLUMNS = 5, 11
BUST_COLUMNS, SHOULDER_RINGS, COLLAR_RINGS = 32, 9, 7
ATLAS = 64
TILES = {  # x, y, width, height in texels, without gutters of one texel
    "head": (1, 1, 62, 46),
    "left_eye": (1, 49, 14, 14),
    "right_eye": (17, 49, 14, 14),
    "bust": (33, 49, 22, 14),
    "mouth": (57, 49, 6, 14),
}
PARTS = ("skin", "eyes", "mouth", "bust")


@dataclass
class Grid:
    """The mesh without positions. `blocks` names runs of vertices."""

    faces: Array = field(default_factory=lambda: np.zeros((0, 3), np.int64))  # [F, 3]
    uv: Array = field(default_factory=lambda: np.zeros((0, 2)))  # [U, 2] from the upper left corner, 0 .. 1
    uv_faces: Array = field(default_factory=lambda: np.zeros((0, 3), np.int64))  # [F, 3]
    parts: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # [F] index into PARTS
    blocks: dict[str, slice] = field(default_factory=dict)
    count: int = 0  # vertices

    def block(self, name: str, size: int) -> Array:
        """Reserve vertices and return their indices."""
        self.blocks[name] = slice(self.count, self.count + size)
        self.count += size
        return np.arange(self.blocks[name].start, self.count)

    def add(self, faces: Array, uv: Array, part: str) -> None:
        """Add faces [F, 3], with a place in the atlas for each corner, uv [F, 3, 2]."""
        start = len(self.uv)
        self.faces = np.concatenate([self.faces, faces])
        self.uv = np.concatenate([self.uv, uv.reshape(-1, 2)])
        self.uv_faces = np.concatenate([self.uv_faces, start + np.arange(3 * len(faces)).reshape(-1, 3)])
        self.parts = np.concatenate([self.parts, np.full(len(faces), PARTS.index(part))])

    def merged(self) -> "Grid":
        """Store each place in the atlas once."""
        uv, inverse = np.unique(self.uv.round(6), axis=0, return_inverse=True)
        self.uv, self.uv_faces = uv, inverse.reshape(-1)[self.uv_faces]
        return self

    def at(self, name: str) -> Array:
        return np.arange(self.blocks[name].start, self.blocks[name].stop)


def longitudes() -> Array:
    """Return the longitudes [COLUMNS] of the columns, densest in front (0) and at the ears; the seam is behind."""
    whole = _spread(np.linspace(-math.pi, math.pi, 4001), np.abs, AROUND)
    symmetric: Array = (whole - whole[::-1]) / 2
    return symmetric[:-1]


def latitudes() -> Array:
    """Return the latitudes [ROWS] of the rows, denser on the face. Row MOUTH_ROW lies on the mouth."""
    found = _spread(np.linspace(TOP, BOTTOM, 4001), np.negative, DOWN)
    found[np.abs(found - MOUTH).argmin()] = MOUTH
    return found


def _spread(fine: Array, place: Callable[[Array], Array], density: tuple[tuple[float, float], ...]) -> Array:
    """Return angles with the given densities, each up to a limit of place(angle) in degrees."""
    limits, values = np.array(density).T
    weights = values[np.searchsorted(limits, np.degrees(place(fine))).clip(max=len(values) - 1)]
    share = np.concatenate([[0], np.cumsum((weights[1:] + weights[:-1]) / 2)])
    count = COLUMNS + 1 if fine[0] < fine[-1] else ROWS
    return np.interp(np.linspace(0, share[-1], count), share, fine)


MOUTH_ROW = int(np.abs(latitudes() - MOUTH).argmin())


def directions() -> Array:
    """Return unit vectors [ROWS * COLUMNS + 2, 3]; the last two are the poles."""
    lat, lon = np.meshgrid(latitudes(), longitudes(), indexing="ij")
    around = np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], -1).reshape(-1, 3)
    return np.concatenate([around, [[0, 1, 0], [0, -1, 0]]])


def placed(tile: str, x: Array, y: Array) -> Array:
    """Return places in the atlas for coordinates 0 .. 1 within a tile, y down."""
    left, top, width, height = TILES[tile]
    return np.stack([left + x * width, top + y * height], -1) / ATLAS


def build() -> Grid:
    grid = Grid()
    _head(grid)
    _mouth(grid)
    for side in ("left", "right"):
        _eye(grid, side)
    for side in ("left", "right"):
        for lid in ("upper", "lower"):
            _lid(grid, side, lid)
    _bust(grid)
    return grid.merged()


def mouth_columns(inner: bool) -> Array:
    """Return the columns from corner to corner of the mouth, without the corners if `inner`."""
    reach = CORNER - 1 if inner else CORNER
    return COLUMNS // 2 + np.arange(-reach, reach + 1)


def _quads(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Return two triangles for each quadrilateral with upper left a, upper right b, lower left c, lower right d."""
    return np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], -2).reshape(-1, 3)


def _strip(grid: Grid, above: Array, below: Array, uv_above: Array, uv_below: Array, part: str) -> None:
    """Join two rows of vertices, from left to right as seen from outside."""
    faces = _quads(above[:-1], above[1:], below[:-1], below[1:])
    n = len(above)
    uv = np.concatenate([uv_above, uv_below])
    places = _quads(
        *(np.arange(n)[k] + shift for k, shift in ((np.s_[:-1], 0), (np.s_[1:], 0), (np.s_[:-1], n), (np.s_[1:], n)))
    )
    grid.add(faces, uv[places], part)


def _head(grid: Grid) -> None:
    body = grid.block("head", ROWS * COLUMNS + 2)
    lower = grid.block("lower_lip", 2 * CORNER - 1)
    rows = body[:-2].reshape(ROWS, COLUMNS)
    under = rows.copy()  # of each row, the vertices that the faces below it use
    under[MOUTH_ROW, mouth_columns(inner=True)] = lower
    u = np.arange(COLUMNS + 1) / COLUMNS
    v = (np.arange(ROWS) + 1) / (ROWS + 1)
    for i in range(ROWS - 1):
        above, below = np.append(under[i], under[i, 0]), np.append(rows[i + 1], rows[i + 1, 0])
        _strip(grid, above, below, placed("head", u, 0 * u + v[i]), placed("head", u, 0 * u + v[i + 1]), "skin")
    for pole, row, at, flipped in ((body[-2], rows[0], 0.0, False), (body[-1], rows[-1], 1.0, True)):
        ring = np.append(row, row[0])
        faces = np.stack([np.full(COLUMNS, pole), ring[:-1], ring[1:]], -1)
        edge = placed("head", u, 0 * u + (v[0] if at == 0 else v[-1]))
        middle = placed("head", (u[:-1] + u[1:]) / 2, np.full(COLUMNS, at))
        uv = np.stack([middle, edge[:-1], edge[1:]], 1)
        grid.add(faces[:, [0, 2, 1]] if flipped else faces, uv[:, [0, 2, 1]] if flipped else uv, "skin")


def _mouth(grid: Grid) -> None:
    """Add the pouch, four rows from the upper to the lower lip, and the teeth, two rows. They face the viewer."""
    n = 2 * CORNER + 1
    x = np.linspace(0, 1, n)
    rows = grid.block("pouch", 4 * n).reshape(4, n)
    dark = [placed("mouth", x, np.full(n, y)) for y in (0.55, 0.7, 0.85, 1.0)]
    for i in range(3):
        _strip(grid, rows[i], rows[i + 1], dark[i], dark[i + 1], "mouth")
    teeth = grid.block("teeth", 2 * (n - 2)).reshape(2, n - 2)
    white = [placed("mouth", x[1:-1], np.full(n - 2, y)) for y in (0.0, 0.35)]
    _strip(grid, teeth[0], teeth[1], white[0], white[1], "mouth")


def eye_rings() -> Array:
    """Return the angles [EYE_RINGS] of the rings from the eye's axis."""
    return np.linspace(0, EYE_LAST, EYE_RINGS + 1)[1:]


def _eye(grid: Grid, side: str) -> None:
    block = grid.block(f"{side}_eye", 1 + EYE_RINGS * EYE_COLUMNS)
    rings = block[1:].reshape(EYE_RINGS, EYE_COLUMNS)
    # As on the ball: x to the right of a viewer, y up. The tile shows the eye from the front.
    reach = np.sin(np.minimum(eye_rings(), math.pi / 2))
    angle = np.arange(EYE_COLUMNS + 1) * (2 * math.pi / EYE_COLUMNS)
    places = [
        placed(f"{side}_eye", 0.5 + 0.5 * r * np.cos(angle), 0.5 - 0.5 * r * np.sin(angle)) for r in (0.0, *reach)
    ]
    ring = np.append(rings[0], rings[0, 0])
    faces = np.stack([np.full(EYE_COLUMNS, block[0]), ring[:-1], ring[1:]], -1)
    grid.add(faces, np.stack([places[0][:-1], places[1][:-1], places[1][1:]], 1), "eyes")
    for i in range(EYE_RINGS - 1):
        inner, outer = (np.append(rings[k], rings[k, 0]) for k in (i, i + 1))
        _strip(grid, inner, outer, places[i + 1], places[i + 2], "eyes")


def _lid(grid: Grid, side: str, lid: str) -> None:
    """Add a cap over an eye. It takes its colour from the skin between eye and brow, or below the eye."""
    block = grid.block(f"{side}_{lid}_lid", LID_ROWS * LID_COLUMNS).reshape(LID_ROWS, LID_COLUMNS)
    column = np.interp(0.40 if side == "left" else -0.40, longitudes(), np.arange(COLUMNS)) / COLUMNS
    row = np.interp(-(0.21 if lid == "upper" else -0.20), -latitudes(), np.arange(ROWS))
    place = placed("head", np.array([column]), np.array([(row + 1) / (ROWS + 1)]))
    uv = np.repeat(place, LID_COLUMNS, 0)
    for i in range(LID_ROWS - 1):
        _strip(grid, block[i], block[i + 1], uv, uv, "skin")


def _bust(grid: Grid) -> None:
    u = np.arange(BUST_COLUMNS + 1) / BUST_COLUMNS
    for name, rings, top, bottom in (("shoulders", SHOULDER_RINGS, 0.0, 0.6), ("collar", COLLAR_RINGS, 0.72, 1.0)):
        block = grid.block(name, rings * BUST_COLUMNS).reshape(rings, BUST_COLUMNS)
        for i in range(rings - 1):
            above, below = (np.append(block[k], block[k, 0]) for k in (i, i + 1))
            y = [top + (bottom - top) * k / (rings - 1) for k in (i, i + 1)]
            _strip(grid, above, below, placed("bust", u, 0 * u + y[0]), placed("bust", u, 0 * u + y[1]), "bust")

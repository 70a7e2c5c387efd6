"""Reads meshes from Wavefront OBJ files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import SnapshotError

MAX_BYTES = 64 * 2**20


class Obj(NamedTuple):
    positions: Array  # [V, 3]
    faces: Array  # [F, 3]; polygons are split
    corners: Array | None  # [F, 3, 2] places in a texture, v upwards
    polygon: Array  # [F] the polygon that each face is part of


def _lines(path: Path) -> list[bytes]:
    if not path.is_file():
        raise SnapshotError(f"{path} is not there")
    if path.stat().st_size > MAX_BYTES:
        raise SnapshotError(f"{path} has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
    return path.read_bytes().splitlines()


def _numbers(path: Path, lines: list[bytes], key: bytes, count: int) -> Array:  # [N, count]
    rows = [line.split()[1 : 1 + count] for line in lines if line.startswith(key)]
    if any(len(row) != count for row in rows):
        raise SnapshotError(f"{path}: a line {key.decode()!r} has fewer than {count} numbers")
    try:
        values = np.array(rows, dtype=np.bytes_).astype(np.float64).reshape(-1, count)
    except ValueError:
        raise SnapshotError(f"{path}: a line {key.decode()!r} holds something else than numbers") from None
    if not np.isfinite(values).all():
        raise SnapshotError(f"{path} holds NaN or infinite numbers")
    return values


def read_positions(path: Path) -> Array:  # [V, 3]
    """Return the vertices alone, which is faster."""
    return _numbers(path, _lines(path), b"v ", 3)


def read_obj(path: Path) -> Obj:
    """Read a mesh of polygons, with places in a texture if every corner has one."""
    lines = _lines(path)
    positions, places = _numbers(path, lines, b"v ", 3), _numbers(path, lines, b"vt ", 2)
    faces: list[tuple[int, int, int]] = []
    at: list[tuple[int, int, int]] = []
    polygon: list[int] = []
    for number, line in enumerate(line for line in lines if line.startswith(b"f ")):
        corners = [_corner(path, word) for word in line.split()[1:]]
        for a, b in zip(corners[1:], corners[2:], strict=False):
            faces.append((corners[0][0], a[0], b[0]))
            at.append((corners[0][1], a[1], b[1]))
            polygon.append(number)
    found, uv = np.array(faces, np.int64).reshape(-1, 3), np.array(at, np.int64).reshape(-1, 3)
    if not len(found) or found.min() < 0 or found.max() >= len(positions) or uv.max() >= len(places):
        raise SnapshotError(f"{path} has no faces, or faces of vertices that it does not have")
    return Obj(positions, found, places[uv] if uv.min() >= 0 else None, np.array(polygon))


def _corner(path: Path, word: bytes) -> tuple[int, int]:
    """Return the indices of vertex and place, from 0; -1 for none."""
    vertex, place, *_ = [*word.split(b"/"), b""]
    try:
        return int(vertex) - 1, int(place) - 1 if place else -1
    except ValueError:
        raise SnapshotError(f"{path}: {word.decode('latin-1')!r} is no corner of a face") from None

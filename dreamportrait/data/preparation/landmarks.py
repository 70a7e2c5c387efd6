"""The hand-over file of landmarks, which any detector can write: landmarks.jsonl, one line per picture.

    {"file": "img/7.jpg", "width": 1024, "height": 768, "faces": [{"scheme": "mesh468", "score": 0.98,
     "points": [[x, y], ...]}]}

`file` is the path of the picture from the folder of the source, with forward slashes. Points are pixels of the picture
as a viewer shows it, after the rotation that its EXIF data asks for; x goes right, y goes down, and the centre of the
first pixel is (0.5, 0.5). `faces` is empty where the detector found none. The schemes:

    mesh468   the 468 points of MediaPipe's face mesh, which `dreamportrait data landmarks` writes
    points68  the 68 points of iBUG 300-W, as dlib and FAN give them
    points5   eye at the left in the picture, eye at the right, tip of the nose, left and right corner of the mouth
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import DataError, brief, shown

SCHEMES = {"mesh468": 468, "points68": 68, "points5": 5}


@dataclass(frozen=True)
class Face:
    """The landmarks of a face in pixels."""

    scheme: str
    points: Array  # [P, 2]
    score: float = 1.0

    @property
    def box(self) -> Array:  # left, top, right, bottom
        return np.concatenate([self.points.min(0), self.points.max(0)])

    @property
    def size(self) -> float:
        """Return the area of the box around the landmarks."""
        return float((self.box[2:] - self.box[:2]).prod())

    def anchors(self) -> Array:  # [5, 2]
        """Return the five points that crops are made from: eyes, tip of the nose, corners of the mouth."""
        return np.stack([self.points[list(group)].mean(0) for group in ANCHORS[self.scheme]])


# The landmarks whose mean is each of the five anchors. An eye is the mean of its corners and lids.
ANCHORS: dict[str, tuple[tuple[int, ...], ...]] = {
    "mesh468": ((33, 133, 159, 145), (362, 263, 386, 374), (1, 4), (61,), (291,)),
    "points68": ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,)),
    "points5": ((0,), (1,), (2,), (3,), (4,)),
}


@dataclass(frozen=True)
class Found:
    """What a detector found in one picture."""

    file: str
    width: int
    height: int
    faces: list[Face]


def to_line(found: Found) -> str:
    """Return the line of a picture in the hand-over file, with points rounded to hundredths of a pixel."""
    faces = [
        {"scheme": face.scheme, "score": round(face.score, 4), "points": face.points.round(2).tolist()}
        for face in found.faces
    ]
    row = {"file": found.file, "width": found.width, "height": found.height, "faces": faces}
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_landmarks(path: Path) -> dict[str, Found]:
    """Read a hand-over file. Raise DataError that names the first wrong line."""
    found: dict[str, Found] = {}
    for where, text in _lines(path):
        each = parse_line(text, where)
        if each.file in found:
            raise DataError(f"{where}: a second line for {shown(each.file)}; keep one")
        found[each.file] = each
    return found


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((f"{path}, line {number}", line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"landmarks {path} cannot be read: {error}") from None


def parse_line(text: str, where: str) -> Found:
    """Read and check one line. `where` names it in errors."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    try:
        file, width, height, faces = row["file"], row["width"], row["height"], row["faces"]
    except (TypeError, KeyError):
        raise DataError(f"{where}: must have file, width, height and faces; see docs/data.md") from None
    if not isinstance(file, str) or not all(type(v) is int and v > 0 for v in (width, height)):
        raise DataError(f"{where}: file must be a text, width and height numbers of pixels")
    if not isinstance(faces, list):
        raise DataError(f"{where}: faces must be a list, empty if there is none")
    return Found(file, width, height, [_face(face, f"{where}, face {i}") for i, face in enumerate(faces, 1)])


def _face(row: Any, where: str) -> Face:
    if not isinstance(row, dict) or row.get("scheme") not in SCHEMES:
        given = brief(row.get("scheme") if isinstance(row, dict) else row)
        raise DataError(f"{where}: scheme is {given}; must be one of {', '.join(SCHEMES)}")
    scheme, points, score = row["scheme"], row.get("points"), row.get("score", 1.0)
    if not _are_points(points, SCHEMES[scheme]):
        raise DataError(f"{where}: points must be {SCHEMES[scheme]} pairs of finite numbers for {scheme}")
    if type(score) not in (int, float) or not math.isfinite(score):
        raise DataError(f"{where}: score must be a number, got {brief(score)}")
    return Face(scheme, np.array(points, float), float(score))


def _are_points(points: Any, count: int) -> bool:
    if not isinstance(points, list) or len(points) != count:
        return False
    pairs = [pair for pair in points if isinstance(pair, list) and len(pair) == 2]
    return len(pairs) == count and all(
        type(value) in (int, float) and math.isfinite(value) for pair in pairs for value in pair
    )


def write_landmarks(path: Path, rows: Iterable[Found]) -> None:
    """Write a hand-over file at once."""
    from dreamportrait.core.files import write_text

    write_text(path, "".join(map(to_line, rows)))

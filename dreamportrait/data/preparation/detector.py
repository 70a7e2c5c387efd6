"""Finds faces and their 468 landmarks with two small networks, through ai-edge-litert.

The detector sees the whole picture at 128 x 128 and gives a box and six points per face. If it finds none, it looks at
overlapping parts, for small faces. The landmark network sees a face upright at 192 x 192, twice: cut out around the
box, then around the landmarks of the first time.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from PIL import Image

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.preparation.landmarks import Face
from dreamportrait.data.preparation.networks import read_networks

DETECTOR_SIZE, LANDMARK_SIZE = 128, 192
LEAST_SCORE = 0.5  # of both networks
SAME_FACE = 0.3  # intersection over union of boxes of one face
MARGIN = 1.5  # side of the landmark network's view, as a multiple of the face's box
EYE_CORNERS = (33, 263)  # outer ones, of the 468 landmarks: left and right in the picture


class Box(NamedTuple):
    """A face in pixels: centre, longer side, angle of the line between the eyes, and how sure the network is."""

    x: float
    y: float
    side: float
    angle: float  # radians, clockwise in the picture
    score: float


class FaceFinder:
    """Finds the faces of pictures. It cannot be sent to another process: each one makes its own."""

    def __init__(self, wheel: Path | None = None, offline: bool = False) -> None:
        detector, landmarks = read_networks(wheel, offline)
        self._detector, self._landmarks = _Network(detector), _Network(landmarks)
        self._anchors = _anchors()  # [896, 2]

    def __call__(self, picture: Image.Image) -> list[Face]:
        """Return the faces of an upright RGB picture, the largest first."""
        found = (self._landmarks_of(picture, box) for box in self._boxes(picture))
        faces = _distinct([face for face in found if face is not None])
        return sorted(faces, key=lambda face: -face.size)

    def _boxes(self, picture: Image.Image) -> list[Box]:
        """Return the faces in the whole picture; if there are none, in parts of a half and then of a third of it."""
        for share in (1, 2, 3):
            width, height = math.ceil(picture.width / share), math.ceil(picture.height / share)
            steps = range(2 * share - 1)  # parts overlap by a half
            corners = [(x * width // 2, y * height // 2) for y in steps for x in steps]
            found = [box for x, y in corners for box in self._detect(picture, (x, y, x + width, y + height))]
            if found:
                return _merged(found)
        return []

    def _detect(self, picture: Image.Image, part: tuple[int, int, int, int]) -> list[Box]:
        """Return the faces in a rectangle (left, top, right, bottom) of a picture."""
        left, top, right, bottom = part
        side = max(right - left, bottom - top)
        # The rectangle is shown in the middle of a black square.
        x0, y0 = (left + right - side) / 2, (top + bottom - side) / 2
        square = _affine(picture.crop(part), DETECTOR_SIZE, (x0 - left, y0 - top), side, 0.0)
        regressors, logits = self._detector(np.asarray(square, np.float32) / 127.5 - 1)
        scores = 1 / (1 + np.exp(-logits[:, 0].clip(-80, 80)))  # [896]
        kept = scores > LEAST_SCORE
        values = regressors[kept].reshape(-1, 8, 2) / DETECTOR_SIZE  # centre, size, six points
        values[:, [0, 2, 3]] += self._anchors[kept, None]
        return [_box(v * side, (x0, y0), float(s)) for v, s in zip(values, scores[kept], strict=True)]

    def meshes(self, picture: Image.Image) -> list[Array]:  # [468, 3] each
        """Return the landmarks of all faces with the depth that the network guesses, in pixels, larger = farther."""
        found = (self._mesh_of(picture, box) for box in self._boxes(picture))
        return [mesh for mesh, score in found if score >= LEAST_SCORE]

    def _landmarks_of(self, picture: Image.Image, box: Box) -> Face | None:
        points, score = self._mesh_of(picture, box)
        return Face("mesh468", points[:, :2], score) if score >= LEAST_SCORE else None

    def _mesh_of(self, picture: Image.Image, box: Box) -> tuple[Array, float]:
        points, score = self._look(picture, box)
        return self._look(picture, _around(points[:, :2], box.score)) if score >= LEAST_SCORE else (points, score)

    def _look(self, picture: Image.Image, box: Box) -> tuple[Array, float]:  # points [468, 3] in pixels, score
        side = MARGIN * box.side
        across = np.array([math.cos(box.angle), math.sin(box.angle)])
        down = np.array([-across[1], across[0]])
        corner = np.array([box.x, box.y]) - (across + down) * side / 2
        view = _affine(picture, LANDMARK_SIZE, (corner[0], corner[1]), side, box.angle)
        points, logit = self._landmarks(np.asarray(view, np.float32) / 255)
        x, y, depth = (points.reshape(-1, 3) * (side / LANDMARK_SIZE)).T[..., None]  # [468, 1] each
        placed = np.concatenate([corner + x * across + y * down, depth], 1)
        return placed, float(1 / (1 + np.exp(-logit.reshape(-1)[0])))


class _Network:
    """A network in a tflite file, run on one thread: pictures are divided among processes."""

    def __init__(self, content: bytes) -> None:
        self._run = _interpreter(content)
        self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]["index"]
        self._outputs = [each["index"] for each in self._run.get_output_details()]

    def __call__(self, picture: Array) -> list[Array]:  # [H, W, 3] -> outputs without the batch axis
        self._run.set_tensor(self._input, picture[None])
        self._run.invoke()
        return [self._run.get_tensor(index)[0] for index in self._outputs]


def _interpreter(content: bytes):  # type: ignore[no-untyped-def]  # the library has no types
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
    except ImportError as error:
        raise WeightsError(
            f"landmarks need ai-edge-litert: pip install 'dreamportrait[landmarks]' ({error}); or use landmarks of "
            "another detector (--landmarks FILE)"
        ) from None
    return Interpreter(model_content=content, num_threads=1)


def _anchors() -> Array:  # [896, 2]
    """Return the centres that boxes are relative to: a 16 x 16 grid of pairs, then an 8 x 8 grid of sixes."""

    def grid(size: int, repeats: int) -> Array:
        y, x = np.mgrid[:size, :size]
        return np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / size, repeats, axis=0)

    return np.concatenate([grid(16, 2), grid(8, 6)]).astype(np.float32)


def _box(values: Array, origin: tuple[float, float], score: float) -> Box:
    """Make a box from centre, size and points [8, 2] in pixels relative to `origin`."""
    x, y = values[0] + np.array(origin)
    across = values[3] - values[2]  # from the eye at the left to the one at the right
    return Box(float(x), float(y), float(values[1].max()), math.atan2(across[1], across[0]), score)


def _merged(boxes: Sequence[Box]) -> list[Box]:
    """Return one box for each face: the mean of the boxes that overlap, weighted by their scores."""
    left, merged = sorted(boxes, key=lambda box: -box.score), []
    while left:
        same = [box for box in left if _overlap(_edges(box), _edges(left[0])) > SAME_FACE]
        left = [box for box in left if box not in same]
        weights = np.array([box.score for box in same])
        merged.append(Box(*(weights @ np.array(same) / weights.sum()).tolist()))
    return merged


def _edges(box: Box) -> Array:  # left, top, right, bottom
    return np.array([box.x, box.y, box.x, box.y]) + np.array([-1, -1, 1, 1]) * box.side / 2


def _around(points: Array, score: float) -> Box:
    """Return the box around landmarks [468, 2], upright in the direction of the eyes."""
    across = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    angle = math.atan2(across[1], across[0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = points @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Box(float(x), float(y), float((high - low).max()), angle, score)


def _affine(picture: Image.Image, size: int, corner: tuple[float, float], side: float, angle: float) -> Image.Image:
    """Cut a turned square out of a picture. `corner` is its first corner; what lies outside is black."""
    factor = max(1, int(side / size))  # reduced first, since `transform` does not average
    if factor > 1:
        picture = picture.reduce(factor)
    step, cos, sin = side / size, math.cos(angle), math.sin(angle)
    rows = (step * cos, -step * sin, corner[0], step * sin, step * cos, corner[1])
    data = tuple(value / factor for value in rows)
    return picture.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Return the most certain one of faces that overlap."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face.box, other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _overlap(a: Array, b: Array) -> float:
    """Return intersection over union of two boxes (left, top, right, bottom)."""
    inner = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))

"""Crops photographs as EG3D's FFHQ preparation does, in one resampling.

1. Roll: the picture is turned until the face stands upright, by the rule of FFHQ's alignment: the direction to the
   right is the line between the eyes, averaged with the perpendicular of the line from the eyes to the mouth.
2. Scale and place: an affine camera is fitted to the five points of the mean face (head.py). Its scale and the image
   of its origin give the crop: 700 / 300 units of the mean face wide, with the origin in the middle.

The crop then looks as through the camera of EG3D's labels, whose focal length is 4.2647 crops at a distance of 2.7.
What lies outside of the photograph is filled with its mirror image, blurred.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from dreamportrait.data.preparation.head import MEAN_FACE

CROP_UNITS = 700 / 300  # side of a crop in units of the mean face
FOCAL = 2985.29 / 700  # normalised focal length of the crop's camera
BLUR = 0.02  # of what is filled in, as a share of the crop's side


@dataclass(frozen=True)
class Square:
    """A turned square of a photograph: its middle, its side, and the direction of its upper edge, in pixels."""

    middle: Array  # [2]
    side: float
    right: Array  # [2] unit vector

    @property
    def axes(self) -> Array:  # [2, 2], rows: right, down
        return np.array([self.right, [-self.right[1], self.right[0]]])

    def to_crop(self, points: Array) -> Array:  # [..., 2] pixels -> [..., 2], 0 .. 1 inside the crop
        return (points - self.middle) @ self.axes.T / self.side + 0.5

    def corners(self) -> Array:  # [4, 2]: upper left, upper right, lower right, lower left
        unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        return self.middle + unit * self.side @ self.axes

    def outside(self, width: int, height: int, samples: int = 64) -> float:
        """Return the share of the crop that lies outside of a photograph."""
        grid = (np.stack(np.meshgrid(*[np.arange(samples)] * 2), -1).reshape(-1, 2) + 0.5) / samples - 0.5
        places = self.middle + grid * self.side @ self.axes
        return float(((places < 0) | (places > [width, height])).any(1).mean())


def face_square(anchors: Array) -> Square:  # [5, 2]
    """Return the square that EG3D's preparation would crop around a face."""
    eyes, mouth = anchors[:2].mean(0), anchors[3:].mean(0)
    down = mouth - eyes
    right = anchors[1] - anchors[0] + np.array([down[1], -down[0]])
    right = right / np.linalg.norm(right)
    axes = np.array([right, [-right[1], right[0]]])
    scale, origin = _affine_camera(anchors @ axes.T)
    return Square(axes.T @ origin, CROP_UNITS * scale, right)


def _affine_camera(points: Array) -> tuple[float, Array]:
    """Fit an affine camera to the mean face, seen at points [5, 2]. Return pixels per unit, and the origin's image."""
    design = np.concatenate([MEAN_FACE * [1, -1, -1], np.ones((5, 1))], 1)  # y down, z away from the camera
    rows = np.linalg.lstsq(design, points, rcond=None)[0]  # [4, 2]
    return float(np.linalg.norm(rows[:3], axis=0).mean()), rows[3]


def cut(photo: Image.Image, square: Square, resolution: int) -> Image.Image:
    """Return the crop of an RGB photograph at `resolution`, with antialiasing."""
    photo, square = _shrunk(*_filled(photo, square), resolution)
    (a, b), (d, e) = square.axes.T * (square.side / resolution)
    x, y = square.corners()[0]
    data = (a, b, x, d, e, y)
    return photo.transform((resolution, resolution), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)


def _shrunk(photo: Image.Image, square: Square, resolution: int) -> tuple[Image.Image, Square]:
    """Scale the photograph down until the square has `resolution` pixels, because `transform` does not average."""
    if square.side <= resolution:
        return photo, square
    scale = resolution / square.side
    width, height = (max(1, int(length * scale)) for length in photo.size)
    small = photo.resize((width, height), Image.Resampling.LANCZOS, (0, 0, width / scale, height / scale), 3.0)
    return small, Square(square.middle * scale, resolution, square.right)


def _filled(photo: Image.Image, square: Square) -> tuple[Image.Image, Square]:
    """Cut the photograph down to the square's surroundings, and fill in what lies outside of it."""
    corners, border = square.corners(), 4
    low = np.floor(corners.min(0)).astype(int) - border
    high = np.ceil(corners.max(0)).astype(int) + border
    size = np.array(photo.size)
    inner_low, inner_high = low.clip(0, size - 1), high.clip(1, size)
    part = photo.crop((*inner_low.tolist(), *inner_high.tolist()))
    before, after = (inner_low - low).clip(0), (high - inner_high).clip(0)
    moved = Square(square.middle - low, square.side, square.right)
    if not before.any() and not after.any():
        return part, moved
    pixels = np.asarray(part)
    pads = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    wide = np.pad(pixels, pads, mode="symmetric").astype(np.float32)
    blurred = np.stack([_blurred(wide[..., c], BLUR * square.side) for c in range(3)], -1)
    known = np.pad(np.ones(pixels.shape[:2], np.float32), pads[:2])
    soft = _blurred(known, BLUR * square.side / 2)[..., None] * known[..., None]  # no edge between photo and filling
    mixed = blurred + (wide - blurred) * np.clip(2 * soft - 1, 0, 1)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)), moved


def _blurred(values: Array, sigma: float) -> Array:
    """Return a Gaussian blur. Four times coarser than asked for where that is cheaper and cannot be seen."""
    if sigma < 8:
        return ndimage.gaussian_filter(values, sigma, mode="nearest")
    coarse = Image.fromarray(values).reduce(4)
    low = ndimage.gaussian_filter(np.asarray(coarse), sigma / 4, mode="nearest")
    return np.asarray(Image.fromarray(low).resize(values.shape[::-1], Image.Resampling.BICUBIC))

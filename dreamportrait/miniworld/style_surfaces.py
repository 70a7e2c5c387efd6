"""Colours, textures and light of styled heads, by position.

Grains are at least two pixels wide in pictures of 64 x 64 pixels, because the miniature autoencoder loses finer ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.faces import LIGHT, lambert
from dreamportrait.miniworld.heads import Part, Shape

Color = tuple[float, float, float]

GRAIN = 0.032  # a pixel of a 64 x 64 picture is 0.013 wide at the centre of the head
_TURN = np.array([[0.36, 0.48, -0.80], [-0.80, 0.60, 0.00], [0.48, 0.64, 0.60]], np.float32)  # a rotation
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


# Textures: factors [P] at places p [P, 3].


def smooth(p: Array, length: float) -> Array:
    """Return noise between -1 and 1 whose waves are `length` long and longer."""
    q = p @ _TURN * np.float32(2 * np.pi / length)
    waves = np.sin(q[:, 0] + 1.3 * np.sin(0.6 * q[:, 1])) + np.sin(q[:, 1] + 1.7 * np.sin(0.5 * q[:, 2]))
    return (waves + np.sin(q[:, 2] + 1.1 * np.sin(0.7 * q[:, 0]))) / 3


def grains(p: Array, size: float = GRAIN) -> Array:
    """Return a random number between 0 and 1 for each cube of side `size`."""
    cells = np.floor(p @ _TURN / size).astype(np.int64)
    mixed = (cells[:, 0] * 73856093) ^ (cells[:, 1] * 19349663) ^ (cells[:, 2] * 83492791)
    return ((mixed * 2654435761 >> 7) & 1023).astype(np.float32) / 1023


def stone_grain(p: Array) -> Array:
    return 1 + 0.10 * smooth(p, 0.35) + 0.22 * (grains(p) - 0.5)


def wood_grain(p: Array) -> Array:
    """Return the rings of a trunk along y, cut off its centre."""
    r = np.sqrt((p[:, 0] - 0.11) ** 2 + (p[:, 2] + 0.32) ** 2) + 0.030 * np.sin(7 * p[:, 1]) + 0.02 * smooth(p, 0.5)
    return 1 + 0.28 * np.sin(r * np.float32(2 * np.pi / 0.085))


def clay_dents(p: Array) -> Array:
    return 1 + 0.13 * smooth(p, 0.16)


def frost(p: Array) -> Array:
    return 1 + 0.05 * smooth(p, 0.2)


# Palettes: plain colours [P, 3] -> styled colours [P, 3].


def luminance(colors: Array) -> Array:
    """Return values between 0 and 1, [P]."""
    found: Array = colors @ _LUMA / 255
    return found


def one_material(colors: Array, material: Color) -> Array:
    """Return brightnesses of one material. Dark paint stays brighter than black, as a cut in stone does."""
    return (0.10 + 1.15 * luminance(colors))[:, None] * np.array(material, np.float32)


def powders(colors: Array, p: Array, tones: Sequence[Color]) -> Array:
    """Return one of the tones, from dark to bright, for each grain. Grains mix where tones meet."""
    level = luminance(colors) * len(tones) + 0.5 * (grains(p) - 0.5)
    chosen = np.array(tones, np.float32)[np.clip(level.astype(int), 0, len(tones) - 1)]
    return chosen * (0.86 + 0.28 * grains(p + np.float32(7.7)))[:, None]


def vivid(colors: Array, amount: float) -> Array:
    """Return colours that are further from gray by the factor `amount`, in steps of 32, as printed ink is."""
    gray = 255 * luminance(colors)[:, None]
    found: Array = np.clip(32 * np.round((gray + amount * (colors - gray)) / 32), 0, 255)
    return found


def blank_eyes(parts: Array, colors: Array) -> Array:
    """Return the colours with the eyes of a statue: neither white nor iris, only the lid's shadow."""
    eye = (parts == Part.EYE) & (luminance(colors) > 0.15)
    return np.where(eye[:, None], np.float32(190), colors)


# Paint on the front of the face, at places p [P, 3].


def jaw_lines(s: Shape, p: Array) -> Array:
    """Return a mask of the two slits beside the chin of a puppet, from the corners of the mouth downwards."""
    x, y = np.abs(p[:, 0]), p[:, 1]
    found: Array = (p[:, 2] > 0) & (np.abs(x - 0.082) < 0.011) & (y < s.mouth_y + 0.03)
    return found


def cheeks(p: Array, radius: float) -> Array:
    x, y = np.abs(p[:, 0]), p[:, 1]
    found: Array = (p[:, 2] > 0) & ((x - 0.122) ** 2 + (y + 0.085) ** 2 < radius**2)
    return found


def sockets(s: Shape, p: Array) -> Array:
    x, y = np.abs(p[:, 0]) - s.eye_x, p[:, 1] - s.eye_y + 0.008
    found: Array = (p[:, 2] > 0) & ((x / 0.080) ** 2 + (y / 0.068) ** 2 < 1)
    return found


def blood(s: Shape, p: Array) -> Array:
    """Return a mask of blood that runs down from the mouth."""
    x, y = p[:, 0], p[:, 1] - s.mouth_y
    left, right = (np.abs(x + 0.048) < 0.016) & (y > -0.105), (np.abs(x - 0.040) < 0.014) & (y > -0.070)
    found: Array = (p[:, 2] > 0) & (y < -0.010) & (left | right)
    return found


def scar(s: Shape, p: Array) -> Array:
    """Return a mask of a sewn cut across the forehead, left of its middle."""
    x, y = p[:, 0], p[:, 1]
    cut = (np.abs(y - 0.165 - 0.35 * (x + 0.05)) < 0.009) & (np.abs(x + 0.05) < 0.085)
    stitches = (np.abs(y - 0.165 - 0.35 * (x + 0.05)) < 0.030) & (np.abs((x + 0.135) % 0.048 - 0.024) < 0.008)
    found: Array = (p[:, 2] > 0) & (cut | (stitches & (np.abs(x + 0.05) < 0.085)))
    return found


def clown_eyes(s: Shape, p: Array) -> Array:
    """Return a mask of the painted diamonds above and below the eyes."""
    x, y = np.abs(np.abs(p[:, 0]) - s.eye_x), np.abs(p[:, 1] - s.eye_y)
    found: Array = (p[:, 2] > 0) & (x / 0.042 + y / 0.125 < 1)
    return found


def clown_mouth(s: Shape, p: Array) -> Array:
    """Return a mask of the wide painted mouth around the real one."""
    x, y = p[:, 0], p[:, 1] - s.mouth_y - 2.2 * p[:, 0] ** 2 + 0.012
    below = p[:, 1] < s.mouth_y + 0.014  # a moustache is above it
    found: Array = (p[:, 2] > 0) & below & ((x / 0.135) ** 2 + (y / 0.060) ** 2 < 1)
    return found


# Light: colours [P, 3] before lighting, unit normals n [P, 3], directions of rays d [P, 3] -> colours [P, 3].


def matte(colors: Array, n: Array, d: Array) -> Array:
    return colors * (0.62 + 0.48 * lambert(n, d))[:, None]


def flat(colors: Array, n: Array, d: Array) -> Array:
    """Return the colours of a picture that lies in a plane: hardly any shade."""
    return colors * (0.90 + 0.10 * lambert(n, d))[:, None]


def cel(colors: Array, n: Array, d: Array) -> Array:
    """Return two tones with a hard border, and dark outlines where the surface turns away."""
    tone = np.where(lambert(n, d) > 0.30, np.float32(1.06), np.float32(0.74))
    outline = _facing(n, d) < 0.40
    return np.where(outline[:, None], np.float32(0.10), tone[:, None]) * colors


def metal(colors: Array, n: Array, d: Array) -> Array:
    """Return the reflection of a dark floor, a bright sky and a lamp."""
    r = _reflected(n, d)
    sky = 0.5 + 0.5 * np.tanh(4.5 * (r[:, 1] + 0.10 + 0.25 * np.sin(4.0 * r[:, 0])))
    lamp = np.clip(r @ LIGHT, 0, 1) ** 14
    return colors * (0.62 + 0.46 * sky)[:, None] + 170 * lamp[:, None]


def snow(colors: Array, n: Array, d: Array) -> Array:
    """Return colours whose shade is blue, as that of snow under the sky is."""
    lit = lambert(n, d)[:, None]
    return colors * (lit + (1 - lit) * np.array([0.62, 0.70, 0.86], np.float32))


def _facing(n: Array, d: Array) -> Array:
    """Return the cosine between normal and ray, positive on both sides of a surface."""
    found: Array = np.abs((n * d).sum(1)) / np.sqrt((d * d).sum(1))
    return found


def _reflected(n: Array, d: Array) -> Array:
    unit = d / np.sqrt((d * d).sum(1))[:, None]
    found: Array = unit - 2 * (unit * n).sum(1)[:, None] * n
    return found

"""Solids of a head, built from its attributes and traits.

The head looks along +z, y is up, and the centre of the head is the origin. Lengths are for a view that is 0.83 wide;
faces.py scales them to the view of EG3D.
"""

from enum import IntEnum

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.attributes import TRAITS, Attributes
from dreamportrait.miniworld.caster import Solid

SKIN = {"pale": (252, 214, 188), "tan": (224, 166, 116), "brown": (158, 100, 58), "dark": (88, 54, 38)}
HAIR = {
    "black": (30, 26, 30),
    "brown": (112, 64, 28),
    "blond": (240, 206, 96),
    "red": (206, 78, 22),
    "gray": (188, 188, 194),
    "pink": (244, 112, 180),
    "blue": (48, 92, 230),
}
PAINT = {
    "red": (216, 34, 38),
    "blue": (40, 80, 222),
    "green": (34, 158, 66),
    "yellow": (252, 214, 44),
    "orange": (246, 132, 24),
    "purple": (138, 50, 174),
    "white": (246, 246, 246),
    "black": (30, 30, 34),
}
BACKGROUND = {
    "white": (240, 240, 240),
    "gray": (138, 138, 146),
    "blue": (92, 158, 236),
    "green": (116, 194, 112),
    "yellow": (250, 230, 128),
    "pink": (250, 182, 202),
    "black": (34, 34, 46),
}
IRIS = {"brown": (104, 58, 20), "blue": (40, 110, 235), "green": (30, 160, 70)}
GOLD, FRAME, LENS = (255, 200, 40), (24, 24, 28), (16, 16, 20)


class Part(IntEnum):
    """Kinds of surfaces that are shaded differently."""

    SKIN, FACE, EYE, HAIR, CURLS, BEARD, HAT, CLOTHES, METAL, FRAME = range(10)


class Shape:
    """Sizes, positions and colours of one head that several parts use."""

    def __init__(self, a: Attributes, traits: Array) -> None:
        t = dict(zip(TRAITS, np.asarray(traits, np.float64) / 2, strict=True))  # -1 .. 1
        man = a["gender"] == "man"
        self.a, self.t, self.man = a, t, man
        self.w = 0.205 * (1 + 0.05 * t["head_width"])
        self.h = 0.275 * (1 + 0.05 * t["head_height"])
        self.d = 0.235
        self.eye_x = 0.084 * (1 + 0.07 * t["eye_spacing"])
        self.eye_y = 0.005
        self.eye_size = 1 + 0.10 * t["eye_size"]
        self.mouth_y = -0.148 + 0.008 * t["mouth_height"]
        self.mouth_w = 1 + 0.12 * t["mouth_width"]
        self.brow_y = 0.082 + 0.010 * t["brow_height"]
        self.skin = shade(SKIN[a["skin"]], t["skin_shade"], 0.05)
        self.hair = shade(HAIR[a["hair_color"]], t["hair_shade"], 0.06)
        self.clothes = shade(PAINT[a["clothes"]], t["clothes_shade"], 0.06)
        self.background = shade(BACKGROUND[a["background"]], t["background_shade"], 0.04)
        self.hat = shade(PAINT[a["hat_color"]], 0, 0)


def shade(color: tuple[int, int, int], trait: float, amount: float) -> Array:
    return np.clip(np.array(color, np.float32) * np.float32(1 + amount * trait), 0, 255)


def build(s: Shape) -> list[Solid]:
    """Return all solids of a head."""
    solids = [*_bust(s), *_face(s), *_hair(s)]
    solids += _HATS[s.a["hat"]](s) if s.a["hat"] != "none" else []
    solids += _beard(s)
    if s.a["eyewear"] != "none":
        solids += _temples(s)
    return solids


def _pair(
    part: Part, center: tuple[float, float, float], radii: tuple[float, float, float], color: Array, roll: float = 0.0
) -> list[Solid]:
    """Return a solid and its mirror image, left and right."""
    x, y, z = center
    return [Solid(part, (side * x, y, z), radii, color, side * roll) for side in (-1, 1)]


def _bust(s: Shape) -> list[Solid]:
    neck = (0.112 if s.man else 0.082) * (1 + 0.06 * s.t["neck"])
    across = (0.37 if s.man else 0.32) * (1 + 0.05 * s.t["shoulders"])
    return [
        Solid(Part.SKIN, (0, -0.30, -0.03), (neck, 0.22, neck), s.skin * np.float32(0.93)),
        Solid(Part.CLOTHES, (0, -0.535, -0.03), (across, 0.205, 0.17), s.clothes),
        Solid(Part.CLOTHES, (0, -0.345, -0.03), (neck * 1.28, 0.035, neck * 1.28), s.clothes * np.float32(0.82)),
    ]


def _face(s: Shape) -> list[Solid]:
    jaw = (0.168 if s.man else 0.138) * (1 + 0.06 * s.t["jaw"])
    nose = 1 + 0.15 * s.t["nose"]
    ear = 1 + 0.12 * s.t["ears"]
    eye = s.eye_size
    solids = [
        Solid(Part.FACE, (0, 0, 0), (s.w, s.h, s.d), s.skin),
        Solid(Part.FACE, (0, -0.115, 0.025), (jaw, 0.172, 0.185), s.skin),
        Solid(Part.SKIN, (0, -0.062, 0.225), (0.028 * nose, 0.046 * nose, 0.046), s.skin),
        *_pair(Part.SKIN, (s.w - 0.002, -0.02, -0.01), (0.032 * ear, 0.058 * ear, 0.036), s.skin * np.float32(0.94)),
        *_pair(Part.EYE, (s.eye_x, s.eye_y, 0.176), (0.056 * eye, 0.046 * eye, 0.046), np.full(3, 250, np.float32)),
    ]
    if s.a["earrings"] == "gold":
        solids += _pair(Part.METAL, (s.w + 0.018, -0.115, 0.0), (0.027, 0.040, 0.027), np.array(GOLD, np.float32))
    return solids


def _hair(s: Shape) -> list[Solid]:
    style, color = s.a["hair_style"], s.hair
    if style == "bald":
        return []
    above = ((0.0, 0.80, -0.60), 0.052)  # the hairline: high in front, low behind
    shell = Solid(Part.HAIR, (0, 0.012, -0.012), (s.w * 1.08, s.h * 1.065, s.d * 1.06), color, keep=(above,))
    if style == "curly":
        return [shell, _curls(s)]
    if style == "bun":
        return [shell, Solid(Part.HAIR, (0, 0.335, -0.05), (0.095, 0.085, 0.095), color)]
    if style == "long":
        behind = Solid(Part.HAIR, (0, -0.10, -0.11), (s.w * 1.22, 0.33, 0.15), color)
        falls = _pair(Part.HAIR, (s.w * 1.02, -0.13, 0.0), (0.062, 0.30, 0.12), color)
        return [shell, behind, *falls]
    if s.a["hat"] != "none":  # short hair, of which a hat leaves only the sides visible
        return [shell, *_pair(Part.HAIR, (s.w * 0.96, 0.0, 0.03), (0.026, 0.10, 0.085), color)]
    return [shell]


def _curls(s: Shape) -> Solid:
    behind = ((0.0, 0.62, -0.78), 0.0)
    if s.a["hat"] == "none":
        return Solid(Part.CURLS, (0, 0.075, -0.055), (s.w * 1.52, s.h * 1.18, s.d * 1.12), s.hair, keep=(behind,))
    low = ((0.0, -1.0, 0.0), -0.095)  # the curls bulge out under the hat
    return Solid(
        Part.CURLS,
        (0, -0.02, -0.05),
        (s.w * 1.48, s.h * 0.75, s.d * 1.05),
        s.hair,
        keep=(((0.0, 0.3, -0.95), -0.02), low),
    )


def _dome(s: Shape, grown: float, bottom: float, color: Array) -> Solid:
    """Return a cap over the skull, above a plane that rises slightly towards the front."""
    radii = (s.w * 1.10 * grown, s.h * 1.13 * grown, s.d * 1.11 * grown)
    return Solid(Part.HAT, (0, 0.01, -0.005), radii, color, keep=(((0.0, 0.98, -0.2), bottom),))


def _cap(s: Shape) -> list[Solid]:
    brim = Solid(Part.HAT, (0, 0.118, 0.25), (0.165, 0.020, 0.15), s.hat * np.float32(0.72))
    return [_dome(s, 1.0, 0.062, s.hat), brim]


def _beanie(s: Shape) -> list[Solid]:
    cuff = Solid(Part.HAT, (0, 0.118, -0.01), (s.w * 1.14, 0.062, s.d * 1.13), s.hat * np.float32(0.74))
    pompon = Solid(Part.HAT, (0, 0.348, -0.01), (0.066, 0.060, 0.066), np.clip(s.hat * 0.6 + 102, 0, 255))
    return [_dome(s, 1.04, 0.10, s.hat), cuff, pompon]


def _wide(s: Shape) -> list[Solid]:
    brim = Solid(Part.HAT, (0, 0.142, 0), (0.39, 0.022, 0.39), s.hat * np.float32(0.92))
    band = Solid(Part.HAT, (0, 0.178, 0), (s.w * 1.10, 0.040, s.d * 1.10), s.hat * np.float32(0.5))
    return [_dome(s, 1.03, 0.13, s.hat), brim, band]


_HATS = {"cap": _cap, "beanie": _beanie, "wide": _wide}


def _beard(s: Shape) -> list[Solid]:
    kind, color = s.a["facial_hair"], s.hair
    moustache = _pair(Part.BEARD, (0.040, -0.108, 0.212), (0.050, 0.021, 0.030), color, roll=-0.30)
    if kind == "moustache":
        return moustache
    chin = Solid(Part.BEARD, (0, -0.255, 0.150), (0.056, 0.070, 0.062), color)
    if kind == "goatee":
        return [chin]
    if kind == "beard":
        below = ((0.0, -1.0, -0.28), 0.062)  # up to the ears at the sides, under the nose in front
        jaw = Solid(Part.BEARD, (0, -0.125, 0.02), (s.w * 0.99, 0.195, 0.222), color, keep=(below,))
        return [jaw, *moustache, Solid(Part.BEARD, (0, -0.245, 0.10), (0.105, 0.095, 0.105), color)]
    return []


def _temples(s: Shape) -> list[Solid]:
    """Return the arms of the glasses. faces.py paints the front of the glasses."""
    return _pair(Part.FRAME, (s.w + 0.006, 0.018, 0.10), (0.010, 0.012, 0.155), np.array(FRAME, np.float32))

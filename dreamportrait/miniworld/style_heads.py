"""Solids of styled heads. Each function changes a Shape for a style and a hidden variant, and returns the solids.

Every head is its own mirror image, left and right.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.caster import Solid
from dreamportrait.miniworld.heads import PAINT, Part, Shape, build

Place = tuple[float, float, float]

WIGS = ("red", "green", "blue")
SCARVES = ("red", "green", "blue")
ELF_HAIR = ((250, 250, 252), (158, 166, 184))  # white, silver
ALIEN_SKIN = ((104, 206, 88), (112, 158, 214), (176, 118, 214))
ZOMBIE_SKIN = ((150, 174, 108), (128, 160, 166))
GLOW = ((64, 240, 255), (255, 96, 40))
STEEL, COAL, CARROT = (168, 178, 192), (26, 26, 30), (246, 128, 22)


def plain(s: Shape, variant: int) -> list[Solid]:
    return build(s)


def one_material(s: Shape, variant: int) -> list[Solid]:
    """Return the plain solids, in grays that do not depend on the person's colours."""
    s.skin, s.hair, s.clothes, s.hat = gray(188), gray(128), gray(160), gray(145)
    return build(s)


def clay_figure(s: Shape, variant: int) -> list[Solid]:
    """Return a head with a thick nose, and beads in place of eyes."""
    s.eye_size *= 0.72
    s.skin, s.hair, s.clothes, s.hat = gray(180), gray(95), gray(155), gray(145)
    solids = [solid for solid in build(s) if solid.part != Part.EYE]
    beads = pair(Part.METAL, (s.eye_x, s.eye_y, 0.200), (0.034, 0.038, 0.034), gray(10))
    return [*solids, *beads, Solid(Part.SKIN, (0, -0.060, 0.235), (0.044, 0.046, 0.050), gray(188))]


def puppet(s: Shape, variant: int) -> list[Solid]:
    """Return a wooden head with a long round nose, on a ball joint. Hair, hat and clothes are painted."""
    s.skin = rgb((236, 186, 118) if variant == 0 else (176, 116, 66))
    nose = Solid(Part.SKIN, (0, -0.052, 0.265), (0.030, 0.030, 0.085), s.skin * np.float32(1.06))
    joint = Solid(Part.SKIN, (0, -0.305, 0.0), (0.135, 0.065, 0.135), s.skin * np.float32(0.70))
    return [*build(s), nose, joint]


def cartoon(s: Shape, variant: int) -> list[Solid]:
    """Return a head with large eyes."""
    s.eye_size *= 1.50
    s.eye_x *= 1.10
    return build(s)


def elf(s: Shape, variant: int) -> list[Solid]:
    """Return a head with long pointed ears and white or silver hair."""
    s.hair = rgb(ELF_HAIR[variant])
    ears = [
        *pair(Part.SKIN, (s.w + 0.055, 0.045, -0.02), (0.036, 0.130, 0.030), s.skin * np.float32(0.95), roll=-0.62),
        *pair(Part.SKIN, (s.w + 0.105, 0.115, -0.025), (0.017, 0.115, 0.018), s.skin * np.float32(0.95), roll=-0.62),
    ]
    return [*build(s), *ears]


def alien(s: Shape, variant: int) -> list[Solid]:
    """Return a bald coloured head with a large skull, black slanted eyes and two antennas."""
    s.a = s.a | {"hair_style": "bald", "facial_hair": "none", "eyewear": "none", "age": "young"}
    s.skin = s.hair = rgb(ALIEN_SKIN[variant])
    s.w, s.h = 1.12 * s.w, 1.04 * s.h
    solids = [solid for solid in build(s) if solid.part != Part.EYE]
    eyes = pair(Part.METAL, (s.eye_x + 0.012, s.eye_y + 0.008, 0.190), (0.088, 0.056, 0.042), gray(8), roll=0.42)
    stalks = pair(Part.SKIN, (0.185, 0.270, 0.0), (0.016, 0.110, 0.016), s.skin * np.float32(0.8), roll=-0.60)
    tips = pair(Part.SKIN, (0.245, 0.350, 0.0), (0.046, 0.046, 0.046), np.clip(s.skin * 0.5 + 128, 0, 255))
    return [*solids, *eyes, *stalks, *tips]


def zombie(s: Shape, variant: int) -> list[Solid]:
    s.a = s.a | {"age": "young"}
    s.skin, s.hair = rgb(ZOMBIE_SKIN[variant]), rgb((70, 66, 58))
    return build(s)


def clown(s: Shape, variant: int) -> list[Solid]:
    """Return a white face with a red ball for a nose, a coloured wig, and a ruff."""
    s.a = s.a | {"hair_style": "curly", "age": "young"}
    s.skin, s.hair = gray(250), rgb(PAINT[WIGS[variant]])
    nose = Solid(Part.METAL, (0, -0.055, 0.262), (0.058, 0.056, 0.056), rgb((238, 24, 36)))
    ruff = Solid(Part.CLOTHES, (0, -0.318, 0.0), (0.185, 0.042, 0.185), gray(250))
    tufts = pair(Part.CURLS, (s.w + 0.060, 0.020, -0.02), (0.110, 0.150, 0.130), s.hair)
    return [*build(s), nose, ruff, *tufts]


def robot(s: Shape, variant: int) -> list[Solid]:
    """Return a head of tin: a cylinder with lamps for eyes, bolts for ears and one antenna."""
    s.a = s.a | dict.fromkeys(("facial_hair", "eyewear", "hat", "earrings"), "none") | {"hair_style": "bald"}
    s.a = s.a | {"age": "young"}
    s.skin, s.hair, s.clothes = rgb(STEEL), rgb(STEEL) * np.float32(0.9), rgb(STEEL) * np.float32(0.7)
    glow = rgb(GLOW[variant])
    head = [
        *cylinder(Part.FACE, (0, 0, 0), 0.235, -0.245, 0.200, s.skin),
        Solid(Part.SKIN, (0, 0.200, 0), (0.235, 0.040, 0.235), s.skin * np.float32(0.9)),
        *cylinder(Part.SKIN, (0, 0, 0), 0.252, 0.145, 0.190, s.skin * np.float32(0.55)),
        *cylinder(Part.SKIN, (0, 0, 0), 0.252, -0.252, -0.215, s.skin * np.float32(0.55)),
    ]
    eyes = [
        *pair(Part.METAL, (0.092, 0.030, 0.205), (0.078, 0.068, 0.035), gray(30)),
        *pair(Part.METAL, (0.092, 0.030, 0.218), (0.052, 0.044, 0.034), glow),
    ]
    bolts = pair(Part.SKIN, (0.245, -0.01, 0), (0.055, 0.085, 0.085), s.skin * np.float32(0.6))
    antenna = [
        Solid(Part.SKIN, (0, 0.265, 0), (0.018, 0.075, 0.018), s.skin * np.float32(0.5)),
        Solid(Part.METAL, (0, 0.350, 0), (0.050, 0.050, 0.050), glow),
    ]
    neck = [Solid(Part.SKIN, (0, y, -0.02), (0.125, 0.032, 0.125), s.skin * np.float32(0.6)) for y in (-0.28, -0.33)]
    bust = [solid for solid in build(s) if solid.part == Part.CLOTHES]
    return [*head, *eyes, *bolts, *antenna, *neck, *bust]


def snowman(s: Shape, variant: int) -> list[Solid]:
    """Return balls of snow with eyes and mouth of coal, a carrot and a scarf."""
    s.a = s.a | {"hair_style": "bald", "facial_hair": "none"}
    s.w = s.d = 0.245
    s.h = 0.250
    snow, scarf = gray(250), rgb(PAINT[SCARVES[variant]])
    balls = [
        Solid(Part.SKIN, (0, 0, 0), (s.w, s.h, s.d), snow),
        Solid(Part.CLOTHES, (0, -0.60, -0.02), (0.390, 0.365, 0.330), snow),
    ]
    eyes = pair(Part.METAL, (s.eye_x, 0.050, 0.215), (0.032, 0.034, 0.028), rgb(COAL))
    carrot = [
        Solid(Part.METAL, (0, -0.030, 0.270), (0.040, 0.040, 0.080), rgb(CARROT)),
        Solid(Part.METAL, (0, -0.034, 0.335), (0.024, 0.024, 0.085), rgb(CARROT)),
    ]
    mouth = [Solid(Part.METAL, _on_ball(s, x, y), (0.019, 0.019, 0.017), rgb(COAL)) for x, y in _coals(s)]
    buttons = [
        Solid(Part.METAL, (0, y, z), (0.030, 0.030, 0.022), rgb(COAL)) for y, z in ((-0.37, 0.225), (-0.48, 0.29))
    ]
    wrap = [
        Solid(Part.CLOTHES, (0, -0.245, 0.0), (0.215, 0.060, 0.215), scarf),
        *pair(Part.CLOTHES, (0.075, -0.355, 0.235), (0.050, 0.115, 0.030), scarf * np.float32(0.85), roll=0.25),
    ]
    hat = [solid for solid in build(s) if solid.part == Part.HAT]
    temples = [solid for solid in build(s) if solid.part == Part.FRAME]
    return [*balls, *eyes, *carrot, *mouth, *buttons, *wrap, *hat, *temples]


def _coals(s: Shape) -> Iterator[tuple[float, float]]:
    """Yield the places of the coals of the mouth, which show the expression."""
    if s.a["expression"] == "surprised":
        for angle in np.arange(8) * (np.pi / 4):
            yield 0.045 * np.sin(angle), -0.135 + 0.045 * np.cos(angle)
        return
    curve = 7.0 if s.a["expression"] == "smile" else 0.0
    height = -0.165 if s.a["expression"] == "smile" else -0.135
    for x in (-0.100, -0.060, -0.020, 0.020, 0.060, 0.100):
        yield x, height + curve * x * x


def _on_ball(s: Shape, x: float, y: float) -> Place:
    return x, y, s.d * float(np.sqrt(1 - (x / s.w) ** 2 - (y / s.h) ** 2))


def cylinder(part: Part, axis: Place, radius: float, low: float, high: float, color: Array) -> list[Solid]:
    """Return an open upright cylinder: the middle of a very long ellipsoid."""
    x, _, z = axis
    long = Solid(part, (x, 0, z), (radius, 8.0, radius), color, keep=(((0, 1, 0), low), ((0, -1, 0), -high)))
    return [long]


def pair(part: Part, center: Place, radii: Place, color: Array, roll: float = 0.0) -> list[Solid]:
    """Return a solid and its mirror image, left and right."""
    x, y, z = center
    return [Solid(part, (side * x, y, z), radii, color, side * roll) for side in (-1, 1)]


def rgb(color: tuple[int, int, int]) -> Array:
    return np.array(color, np.float32)


def gray(value: float) -> Array:
    return np.full(3, value, np.float32)

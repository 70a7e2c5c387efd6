"""Twelve styles of the miniature world: what a head is made of, or who it is.

    picture = render(attributes, traits, camera, look=Look(style("gold statue"), variant=1))

A style has hidden variants that captions never mention: the wig of a clown is red, green or blue. A picture editor is
therefore inconsistent between views, as real editors are. `keeps` names the attributes that a styled head still shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld import style_heads as heads
from dreamportrait.miniworld import style_surfaces as surfaces
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible
from dreamportrait.miniworld.caster import Solid
from dreamportrait.miniworld.faces import PLAIN
from dreamportrait.miniworld.heads import Part, Shape

Solids = Callable[[Shape, int], list[Solid]]  # shape, variant
Palette = Callable[[Shape, int, Array, Array, Array], Array]  # shape, variant, parts [P], colours [P, 3], p [P, 3]
Texture = Callable[[Array], Array]  # p [P, 3] -> factors [P]
Light = Callable[[Array, Array, Array], Array]  # colours [P, 3], n [P, 3], d [P, 3] -> colours [P, 3]


@dataclass(frozen=True)
class Style:
    name: str
    phrases: tuple[str, ...]  # noun phrases without an article, the name first
    depicts: bool  # whether it is something of a person ("a gold statue of a man") or somebody ("a male elf")
    keeps: frozenset[str]  # attributes that stay readable
    variants: int  # hidden ones
    solids: Solids
    palette: Palette
    texture: Texture
    light: Light
    far: bool = False  # far from a head: shown as a limit of the method

    def visible(self, attributes: Attributes) -> list[str]:
        """Return the attributes that a picture of this styled head from the front shows."""
        return [name for name in ATTRIBUTES if name in self.keeps and is_visible(attributes, name)]


@dataclass(frozen=True)
class Look:
    """A style with its hidden variant, as `faces.render` takes it.

    white: whether the background is pure white instead of the colour that the attributes name.
    """

    style: Style | None  # None = a plain head
    variant: int = 0
    white: bool = False

    def __post_init__(self) -> None:
        count = self.style.variants if self.style else 1
        if not 0 <= self.variant < count:
            name = self.style.name if self.style else "a plain head"
            raise ValueError(f"variant={self.variant}: {name} has the variants 0 to {count - 1}")

    @classmethod
    def from_row(cls, row: Sequence[int]) -> "Look":
        """Read a look from three numbers: style (-1 = none), variant, whether the background is white."""
        number, variant, white = (int(value) for value in row)
        return cls(STYLES[number] if number >= 0 else None, variant, bool(white))

    def row(self) -> tuple[int, int, int]:
        return (STYLES.index(self.style) if self.style else -1), self.variant, int(self.white)

    def solids(self, shape: Shape) -> list[Solid]:
        if self.white:
            shape.background = np.full(3, 255, np.float32)
        return self.style.solids(shape, self.variant) if self.style else PLAIN.solids(shape)

    def colors(self, shape: Shape, parts: Array, colors: Array, p: Array) -> Array:
        if self.style is None:
            return colors
        painted = self.style.palette(shape, self.variant, parts, colors, p)
        return np.clip(painted * self.style.texture(p)[:, None], 0, 255)

    def light(self, colors: Array, n: Array, d: Array) -> Array:
        return np.clip(self.style.light(colors, n, d), 0, 255) if self.style else PLAIN.light(colors, n, d)


def style(name: str) -> Style:
    for found in STYLES:
        if found.name == name:
            return found
    raise ValueError(f"style={name!r}: must be one of {', '.join(NAMES)}")


# Palettes.


def _statue(materials: Sequence[surfaces.Color]) -> Palette:
    def paint(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
        return surfaces.one_material(surfaces.blank_eyes(parts, colors), materials[variant])

    return paint


def _clay(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    return surfaces.one_material(colors, ((226, 108, 62), (176, 112, 92))[variant])


def _sand(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    return surfaces.powders(colors, p, _SANDS[variant])


def _puppet(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    colors = colors.copy()
    face, carved = parts == Part.FACE, np.isin(parts, (Part.HAIR, Part.CURLS, Part.HAT))
    colors[carved] = 0.72 * colors[carved] + 0.28 * s.skin  # paint through which the wood shows
    colors[face & surfaces.cheeks(p, 0.050)] = (216, 70, 48)
    colors[face & surfaces.jaw_lines(s, p)] = (52, 28, 14)
    return colors


def _cartoon(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    return surfaces.vivid(colors, (1.45, 1.15)[variant])


def _as_is(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    return colors


def _zombie(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    colors = colors.copy()
    face = parts == Part.FACE
    colors[face & surfaces.sockets(s, p)] *= np.float32(0.42)
    colors[face & surfaces.scar(s, p)] = (88, 18, 24)
    colors[np.isin(parts, (Part.FACE, Part.BEARD)) & surfaces.blood(s, p)] = (150, 14, 20)
    eye = parts == Part.EYE
    colors[eye] *= np.array([0.96, 0.94, 0.55], np.float32)
    rotten = surfaces.smooth(p, 0.17)
    colors[np.isin(parts, (Part.HAIR, Part.CURLS)) & (rotten > 0.42)] = s.skin * np.float32(0.8)  # bald patches
    colors[(parts == Part.CLOTHES) & (rotten < -0.45)] = (96, 14, 18)
    return colors


def _clown(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    colors = colors.copy()
    face = parts == Part.FACE
    skin = face & (colors == s.skin).all(1)  # not brows, nor the mouth itself
    colors[skin & surfaces.clown_eyes(s, p)] = (46, 74, 196)
    colors[skin & surfaces.clown_mouth(s, p)] = (226, 26, 40)
    colors[face & surfaces.cheeks(p, 0.042)] = (250, 120, 130)
    return colors


def _robot(s: Shape, variant: int, parts: Array, colors: Array, p: Array) -> Array:
    """Return steel. The brows and the blush of the plain face are not painted; teeth become lamps."""
    face = parts == Part.FACE
    mouth = face & (p[:, 1] < s.mouth_y + 0.08)
    level = surfaces.luminance(colors)
    colors = np.where((face & ~mouth)[:, None], s.skin, colors)
    return np.where((mouth & (level > 0.9))[:, None], np.array(heads.GLOW[variant], np.float32), colors)


_SANDS = (
    ((78, 44, 24), (150, 92, 46), (208, 156, 92), (240, 212, 156)),
    ((66, 22, 22), (146, 52, 40), (204, 104, 76), (238, 172, 140)),
)


def _smooth(p: Array) -> Array:
    return np.ones(len(p), np.float32)


# The styles.

_FORM = frozenset({"gender", "hair_style", "eyewear", "facial_hair", "expression", "hat", "background"})
_PAINTED = frozenset({"hat_color", "clothes"})
_ALL = frozenset(ATTRIBUTES)

STYLES: tuple[Style, ...] = (
    Style(
        "stone statue",
        ("stone statue", "statue made of stone", "stone sculpture"),
        depicts=True,
        keeps=_FORM | {"age"},
        variants=2,
        solids=heads.one_material,
        palette=_statue(((204, 204, 198), (146, 150, 156))),
        texture=surfaces.stone_grain,
        light=surfaces.matte,
    ),
    Style(
        "gold statue",
        ("gold statue", "golden statue", "statue made of gold"),
        depicts=True,
        keeps=_FORM,
        variants=2,
        solids=heads.one_material,
        palette=_statue(((255, 196, 44), (250, 168, 84))),
        texture=_smooth,
        light=surfaces.metal,
    ),
    Style(
        "clay figure",
        ("clay figure", "figure made of clay", "terracotta figure"),
        depicts=True,
        keeps=_FORM,
        variants=2,
        solids=heads.clay_figure,
        palette=_clay,
        texture=surfaces.clay_dents,
        light=surfaces.matte,
    ),
    Style(
        "wooden puppet",
        ("wooden puppet", "wooden marionette", "puppet made of wood"),
        depicts=True,
        keeps=_FORM | _PAINTED | {"hair_color"},
        variants=2,
        solids=heads.puppet,
        palette=_puppet,
        texture=surfaces.wood_grain,
        light=PLAIN.light,
    ),
    Style(
        "sand painting",
        ("sand painting", "painting made of sand", "sand picture"),
        depicts=True,
        keeps=_FORM,
        variants=2,
        solids=heads.one_material,
        palette=_sand,
        texture=_smooth,
        light=surfaces.flat,
    ),
    Style(
        "cartoon",
        ("cartoon", "comic drawing", "cartoon drawing"),
        depicts=True,
        keeps=_ALL,
        variants=2,
        solids=heads.cartoon,
        palette=_cartoon,
        texture=_smooth,
        light=surfaces.cel,
    ),
    Style(
        "elf",
        ("elf", "woodland elf", "elf with pointed ears"),
        depicts=False,
        keeps=_ALL - {"hair_color", "earrings"},
        variants=2,
        solids=heads.elf,
        palette=_as_is,
        texture=_smooth,
        light=PLAIN.light,
    ),
    Style(
        "alien",
        ("alien", "space alien", "alien from space"),
        depicts=False,
        keeps=_PAINTED | {"expression", "hat", "background"},
        variants=3,
        solids=heads.alien,
        palette=_as_is,
        texture=_smooth,
        light=PLAIN.light,
    ),
    Style(
        "zombie",
        ("zombie", "undead zombie", "rotting zombie"),
        depicts=False,
        keeps=_FORM | _PAINTED,
        variants=2,
        solids=heads.zombie,
        palette=_zombie,
        texture=surfaces.frost,
        light=PLAIN.light,
    ),
    Style(
        "clown",
        ("clown", "circus clown", "clown with a red nose"),
        depicts=False,
        keeps=(_FORM | _PAINTED) - {"hair_style"},
        variants=3,
        solids=heads.clown,
        palette=_clown,
        texture=_smooth,
        light=PLAIN.light,
    ),
    Style(
        "robot",
        ("robot", "metal robot", "tin robot"),
        depicts=False,
        keeps=frozenset({"expression", "background"}),
        variants=2,
        solids=heads.robot,
        palette=_robot,
        texture=_smooth,
        light=surfaces.metal,
        far=True,
    ),
    Style(
        "snowman",
        ("snowman", "snowman with a carrot nose", "man made of snow"),
        depicts=False,
        keeps=frozenset({"expression", "hat", "hat_color", "eyewear", "background"}),
        variants=3,
        solids=heads.snowman,
        palette=_as_is,
        texture=surfaces.frost,
        light=surfaces.snow,
        far=True,
    ),
)
NAMES = tuple(found.name for found in STYLES)

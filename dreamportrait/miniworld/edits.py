"""Endless exact triples for a picture editor: a plain head, an instruction, and the head as the instruction wants it.

    edit = draw_edit("train", 7)
    before, after = edit.before(), edit.after()  # [3, R, R] uint8 each; edit.instruction says what changes

Both pictures show the same identity from the same camera before the same background. Half of the instructions ask for a
style, 40 % for another value of an attribute, 10 % for both. Hidden variants are drawn anew for each triple.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld import instructions
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_held_out, is_visible, read_code, settle
from dreamportrait.miniworld.captions import lacking
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.grammar import ABSENT, Draw
from dreamportrait.miniworld.styled_captions import BLURRED, SHARP
from dreamportrait.miniworld.styled_world import BLUR, blurred, draw_code, draw_style, is_style_held_out
from dreamportrait.miniworld.styled_world import BLURRED as BLURRED_SHARE
from dreamportrait.miniworld.styles import Look
from dreamportrait.miniworld.world import RESOLUTION, cameras_at

SEEDS = {"train": 21, "validation": 22, "test": 23}
STYLE_ONLY, ATTRIBUTE_ONLY = 0.5, 0.4  # shares of the triples; the rest changes both
TELLS_SHARP = 0.3  # share of the instructions for sharp pictures that say so


@dataclass(frozen=True)
class Edit:
    """A triple before it is rendered."""

    instruction: str
    face: Attributes
    changed: Attributes  # attributes with other values afterwards
    look: Look  # afterwards
    traits: Array  # [len(TRAITS)]
    camera: Array  # [25]
    blur: float  # standard deviation afterwards, in pixels; 0 = sharp

    @property
    def face_after(self) -> Attributes:
        return self.face | self.changed

    def before(self, resolution: int = RESOLUTION) -> Array:  # [3, R, R] uint8
        return render(self.face, self.traits, self.camera, resolution).image.transpose(2, 0, 1)

    def after(self, resolution: int = RESOLUTION) -> Array:  # [3, R, R] uint8
        image = render(self.face_after, self.traits, self.camera, resolution, self.look).image.transpose(2, 0, 1)
        return blurred(image, self.blur * resolution / RESOLUTION) if self.blur else image

    def kept(self) -> list[str]:
        """Return the attributes that are as before and that both pictures show."""
        shown = list(ATTRIBUTES) if self.look.style is None else self.look.style.visible(self.face_after)
        both = [name for name in shown if is_visible(self.face, name) and is_visible(self.face_after, name)]
        return [name for name in both if name not in self.changed]


def draw_edit(split: str, index: int) -> Edit:
    """Return triple `index` of a split, which depends on both alone. There is no last one."""
    if split not in SEEDS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SEEDS)}")
    if index < 0:
        raise ValueError(f"index={index}: cannot be negative")
    rng = np.random.Generator(np.random.PCG64([SEEDS[split], index]))
    camera, draw = cameras_at(rng.uniform(-1, 1, (1, 2)))[0], Draw(rng)
    while True:
        face, traits = read_code(draw_code(rng))
        kind = rng.random()
        styled, attribute = kind < STYLE_ONLY or kind >= STYLE_ONLY + ATTRIBUTE_ONLY, kind >= STYLE_ONLY
        look = Look(*draw_style(rng)) if styled else Look(None)
        options = changes(face, look) if attribute else [{}]
        if not options:
            continue
        changed = _drawn(options, rng)
        if not is_style_held_out(look.style, face | changed):
            break
    text = _instruction(look, changed, draw)
    blur = float(rng.uniform(*BLUR)) if rng.random() < BLURRED_SHARE else 0.0
    if blur:
        text = f"{text}, {draw.pick(BLURRED)}"
    elif rng.random() < TELLS_SHARP:
        text = f"{text}, {draw.pick(SHARP)}"
    return Edit(text, face, changed, look, traits, camera, blur)


def changes(face: Attributes, look: Look) -> list[Attributes]:
    """Return the changes of one attribute that leave all others as they are and that the new picture shows.

    A new hat has a new colour, too, because a head without a hat shows none.
    """
    found = []
    for name, values in ATTRIBUTES.items():
        for value in values:
            changed = {name: value}
            if name == "hat" and face["hat"] == "none":
                found += [changed | {"hat_color": color} for color in ATTRIBUTES["hat_color"]]
            else:
                found.append(changed)
    return [changed for changed in found if _possible(face, changed, look)]


def _possible(face: Attributes, changed: Attributes, look: Look) -> bool:
    after = face | changed
    name, value = next(iter(changed.items()))
    if face[name] == value or settle(after) != after or is_held_out(after):
        return False
    if value == "none" and (name not in ABSENT or name not in lacking(after)):
        return False
    kept = look.style is None or name in look.style.keeps
    return kept and is_visible(after, name)


def _drawn(options: list[Attributes], rng: np.random.Generator) -> Attributes:
    """Draw an attribute, then one of its changes, so that attributes with many values are not preferred."""
    names = sorted({next(iter(option), "") for option in options})
    name = names[int(rng.integers(len(names)))]
    fitting = [option for option in options if next(iter(option), "") == name]
    return fitting[int(rng.integers(len(fitting)))]


def _instruction(look: Look, changed: Attributes, draw: Draw) -> str:
    styled = instructions.styling(look.style, draw) if look.style else ""
    told = {name: value for name, value in changed.items() if look.style is None or name in look.style.keeps}
    asked = instructions.changing(told, draw) if told else ""
    return instructions.joined(styled, asked) if styled and asked else styled or asked

"""English captions of a face: the choice of the attributes that a caption states.

Captions state only attributes that are present and visible. Those for training also deny some things that are absent
("without a hat"). grammar.py puts exactly the chosen attributes into words, so that captions can be tested and
retrieval results can be checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, check_attributes, is_visible, settle
from dreamportrait.miniworld.grammar import ABSENT, Draw, state, vocabulary

__all__ = [
    "agrees",
    "captions",
    "describe",
    "evaluation_caption",
    "evaluation_facts",
    "extend",
    "first_facts",
    "lacking",
    "say",
    "sayable",
    "vocabulary",
]

# Relative frequency of each attribute in captions.
_WEIGHTS = {
    "gender": 10,
    "age": 3,
    "skin": 3,
    "hair_style": 4,
    "hair_color": 5,
    "eye_color": 2,
    "eyewear": 5,
    "facial_hair": 5,
    "expression": 3,
    "hat": 5,
    "hat_color": 4,
    "earrings": 3,
    "lipstick": 3,
    "clothes": 4,
    "background": 4,
}
_COUNTS = (2, 3, 4, 4, 5, 5, 6, 7)  # numbers of attributes in a caption, all equally likely

# Evaluation captions name these where the face shows them, so that a caption identifies one face of a hundred. Half
# of the time hair_style is dropped again, unless it is bald.
_TELLING = ("gender", "hair_style", "hair_color", "hat", "hat_color", "eyewear", "facial_hair")
_EVALUATION_COUNTS = (6, 7, 8)

# Independent random streams of one seed.
_CAPTIONS, _EVALUATION = 0, 1


def describe(attributes: Attributes, rng: np.random.Generator) -> str:
    """Return one random caption."""
    _check(attributes)
    return _describe(attributes, Draw(rng))


def captions(attributes: Attributes, seed: int, count: int = 10, deny: float = 0.0) -> list[str]:
    """Return `count` captions that all differ. The first n are the same for every count >= n.

    deny: share of the captions that also say what is absent ("without glasses").
    """
    _check(attributes)
    if count < 0:
        raise ValueError(f"count={count}: cannot be negative")
    draw = Draw(_stream(seed, _CAPTIONS))
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(_describe(attributes, draw, deny))
    return list(found)


@dataclass(frozen=True)
class Told:
    """A caption before it is put into words: a face, the attributes that are stated, and those that are denied."""

    face: Attributes
    stated: frozenset[str]
    absent: tuple[str, ...]
    wording: int  # seed of the choice of words

    def text(self) -> str:
        return state(self.face, set(self.stated), Draw(np.random.Generator(np.random.PCG64(self.wording))), self.absent)


def told(attributes: Attributes, rng: np.random.Generator, deny: float, telling: bool = False) -> Told:
    """Return a random caption that, with probability `deny`, also says what is absent.

    telling: state what distinguishes the face from others, as evaluation captions do.
    """
    draw = Draw(rng)
    names = _evaluation_names(attributes, draw) if telling else _usual_names(attributes, draw)
    return Told(attributes, frozenset(names), _denied(attributes, draw, deny), int(rng.integers(2**62)))


def contradicted(caption: Told, rng: np.random.Generator) -> Told:
    """Return the caption with one stated or denied attribute changed to another value, in the same wording.

    It is false for the face. Values are changed only if the rest of the caption can stay as it is.
    """
    options = []
    for name in sorted(caption.stated | set(caption.absent)):
        for value in ATTRIBUTES[name]:
            face = settle(caption.face | {name: value})
            others = (caption.stated | set(caption.absent)) - {name}
            kept = all(face[other] == caption.face[other] for other in others)
            if value != caption.face[name] and face[name] == value and kept and (value != "none" or name in ABSENT):
                options.append((name, face))
    names = sorted({name for name, _ in options})
    if not names:
        return caption
    name = names[int(rng.integers(len(names)))]
    faces = [face for option, face in options if option == name]
    face = faces[int(rng.integers(len(faces)))]
    if face[name] == "none":
        stated, absent = caption.stated - {name}, (*caption.absent, name)
    else:
        stated, absent = caption.stated | {name}, tuple(other for other in caption.absent if other != name)
    if not all(other in sayable(face) for other in stated):
        return caption
    return Told(face, frozenset(_complete(face, set(stated))), absent, caption.wording)


def lacking(a: Attributes) -> tuple[str, ...]:
    """Return what a caption may deny: only women are said to have no earrings or lipstick, only men no beard."""
    unusual = ("facial_hair",) if a["gender"] == "woman" else ("earrings", "lipstick")
    return tuple(name for name in ABSENT if a[name] == "none" and name not in unusual)


def first_facts(attributes: Attributes, seed: int) -> Attributes:
    """Return exactly the attributes and values that the first of captions() states for the same face and seed."""
    _check(attributes)
    return _only(attributes, _usual_names(attributes, Draw(_stream(seed, _CAPTIONS))))


def evaluation_caption(attributes: Attributes, seed: int) -> str:
    """Return the caption of this face for retrieval. It names attributes that distinguish the face from others."""
    _check(attributes)
    draw = Draw(_stream(seed, _EVALUATION))
    return state(attributes, _evaluation_names(attributes, draw), draw)


def evaluation_facts(attributes: Attributes, seed: int) -> Attributes:
    """Return exactly the attributes and values that evaluation_caption states for the same face and seed."""
    _check(attributes)
    return _only(attributes, _evaluation_names(attributes, Draw(_stream(seed, _EVALUATION))))


def agrees(attributes: Attributes, facts: Attributes) -> bool:
    """Return whether a face visibly has all these values."""
    return all(attributes[name] == value and is_visible(attributes, name) for name, value in facts.items())


def sayable(attributes: Attributes) -> list[str]:
    """Return the attributes that a caption may state: visible ones whose value is not "none"."""
    return [name for name in ATTRIBUTES if attributes[name] != "none" and is_visible(attributes, name)]


def say(attributes: Attributes, names: set[str], rng: np.random.Generator) -> str:
    """Return a caption that states exactly these attributes."""
    _check(attributes)
    allowed = sayable(attributes)
    if hidden := [name for name in names if name not in allowed]:
        raise ValueError(f"{', '.join(sorted(hidden))}: not to be seen on this face; choose from {', '.join(allowed)}")
    if _complete(attributes, set(names)) != names:
        raise ValueError("hair_color of a bald face is that of its facial_hair: name both")
    return state(attributes, set(names), Draw(rng))


def _check(attributes: Attributes) -> None:
    check_attributes(attributes)
    if missing := [name for name in ATTRIBUTES if name not in attributes]:
        raise ValueError(f"a face has all attributes; missing: {', '.join(missing)} (see make_attributes)")


def _only(attributes: Attributes, names: set[str]) -> Attributes:
    return {name: attributes[name] for name in ATTRIBUTES if name in names}


def _stream(seed: int, use: int) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed={seed}: cannot be negative")
    return np.random.Generator(np.random.PCG64([seed, use]))


# Choosing the attributes of a caption.


def _describe(a: Attributes, draw: Draw, deny: float = 0.0) -> str:
    return state(a, _usual_names(a, draw), draw, _denied(a, draw, deny))


def _denied(a: Attributes, draw: Draw, deny: float) -> tuple[str, ...]:
    """Return, with probability `deny`, one absent thing. Numbers are drawn only if `deny` is not 0."""
    missing = lacking(a) if deny else ()
    return (draw.pick(missing),) if missing and draw.chance(deny) else ()


def _usual_names(a: Attributes, draw: Draw) -> set[str]:
    return extend(a, set(), draw.pick(_COUNTS), draw, sayable(a))


def _evaluation_names(a: Attributes, draw: Draw) -> set[str]:
    allowed = sayable(a)
    names = {name for name in _TELLING if name in allowed}
    if a["hair_style"] != "bald" and draw.chance(0.5):
        names.remove("hair_style")
    names.add(draw.pick(("clothes", "background")))
    return extend(a, names, draw.pick(_EVALUATION_COUNTS), draw, allowed)


def extend(a: Attributes, names: set[str], count: int, draw: Draw, allowed: Sequence[str]) -> set[str]:
    """Add attributes drawn by weight until there are `count`, and return all of them."""
    rest = [name for name in allowed if name not in names]
    total = sum(_WEIGHTS[name] for name in rest)
    while rest and len(names) < count:
        left = draw.number() * total
        for name in rest:
            left -= _WEIGHTS[name]
            if left < 0:
                break
        rest.remove(name)
        total -= _WEIGHTS[name]
        names.add(name)
    return _complete(a, names)


def _complete(a: Attributes, names: set[str]) -> set[str]:
    """Add facial_hair if the hair colour of a bald face is named, because only facial hair shows that colour."""
    bald = a["hair_style"] == "bald" and "hair_color" in names
    return names | {"facial_hair"} if bald else names

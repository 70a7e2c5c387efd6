"""English captions of a face: which of its attributes they speak of.

Only visible attributes that are there to be named: nobody is "without a hat". grammar.py puts them into words and
states exactly those, which makes captions testable and retrieval decidable.
"""

import numpy as np

from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, check_attributes, is_visible
from dreamportrait.miniworld.grammar import Draw, state, vocabulary

__all__ = [
    "agrees",
    "captions",
    "describe",
    "evaluation_caption",
    "evaluation_facts",
    "first_facts",
    "say",
    "sayable",
    "vocabulary",
]

# How often an attribute is spoken of, next to the others.
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
_COUNTS = (2, 3, 4, 4, 5, 5, 6, 7)  # of attributes in a caption

# Evaluation captions always name these where there are any, so that one face of a hundred can be told.
_TELLING = ("gender", "hair_style", "hair_color", "hat", "hat_color", "eyewear", "facial_hair")
_EVALUATION_COUNTS = (6, 7, 8)

# Independent streams of one seed.
_CAPTIONS, _EVALUATION = 0, 1


def describe(attributes: Attributes, rng: np.random.Generator) -> str:
    """One caption."""
    _check(attributes)
    return _describe(attributes, Draw(rng))


def captions(attributes: Attributes, seed: int, count: int = 10) -> list[str]:
    """Captions that all differ; the first n are the same for every count >= n."""
    _check(attributes)
    if count < 0:
        raise ValueError(f"count={count}: cannot be negative")
    draw = Draw(_stream(seed, _CAPTIONS))
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(_describe(attributes, draw))
    return list(found)


def first_facts(attributes: Attributes, seed: int) -> Attributes:
    """What the first of captions() of the same face and seed states: exactly these attributes and values."""
    _check(attributes)
    return _only(attributes, _usual_names(attributes, Draw(_stream(seed, _CAPTIONS))))


def evaluation_caption(attributes: Attributes, seed: int) -> str:
    """The caption that stands for this face in retrieval: it names what tells the face from others."""
    _check(attributes)
    draw = Draw(_stream(seed, _EVALUATION))
    return state(attributes, _evaluation_names(attributes, draw), draw)


def evaluation_facts(attributes: Attributes, seed: int) -> Attributes:
    """What evaluation_caption of the same face and seed states: exactly these attributes and values."""
    _check(attributes)
    return _only(attributes, _evaluation_names(attributes, Draw(_stream(seed, _EVALUATION))))


def agrees(attributes: Attributes, facts: Attributes) -> bool:
    """Whether a face visibly has all these values."""
    return all(attributes[name] == value and is_visible(attributes, name) for name, value in facts.items())


def sayable(attributes: Attributes) -> list[str]:
    """The attributes that a caption may speak of."""
    return [name for name in ATTRIBUTES if attributes[name] != "none" and is_visible(attributes, name)]


def say(attributes: Attributes, names: set[str], rng: np.random.Generator) -> str:
    """A caption that states exactly these attributes."""
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


# What a caption speaks of.


def _describe(a: Attributes, draw: Draw) -> str:
    return state(a, _usual_names(a, draw), draw)


def _usual_names(a: Attributes, draw: Draw) -> set[str]:
    return _extend(a, set(), draw.pick(_COUNTS), draw)


def _evaluation_names(a: Attributes, draw: Draw) -> set[str]:
    allowed = sayable(a)
    names = {name for name in _TELLING if name in allowed}
    if a["hair_style"] != "bald" and draw.chance(0.5):
        names.remove("hair_style")
    names.add(draw.pick(("clothes", "background")))
    return _extend(a, names, draw.pick(_EVALUATION_COUNTS), draw)


def _extend(a: Attributes, names: set[str], count: int, draw: Draw) -> set[str]:
    """With further attributes drawn by weight until there are `count`."""
    rest = [name for name in sayable(a) if name not in names]
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
    """Who is bald shows the hair colour in a beard only, so the beard must be named with it."""
    bald = a["hair_style"] == "bald" and "hair_color" in names
    return names | {"facial_hair"} if bald else names

"""Faces of the miniature world: named attributes, continuous traits, and the Gaussian codes they are read from.

The code z has one number per value of every attribute, and one per trait. An attribute takes the value with the largest
sum of number and bias; the bias sets how common a value is. A small network can learn an argmax, while thresholds on a
single number are hard to learn. Rules then remove values that cannot be seen together (a bun under a hat).
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "white", "black")

# Values and their biases. A bias of +1 makes a value about three times as common.
_TABLE: dict[str, dict[str, float]] = {
    "gender": {"woman": 0, "man": 0},
    "age": {"young": 1, "old": 0},
    "skin": {"pale": 0, "tan": 0, "brown": 0, "dark": 0},
    "hair_style": {"short": 0.2, "long": 0.2, "curly": 0, "bun": 0, "bald": 0},
    "hair_color": {"black": 0.2, "brown": 0.2, "blond": 0.2, "red": 0, "gray": -0.4, "pink": -0.2, "blue": -0.2},
    "eye_color": {"brown": 0, "blue": 0, "green": 0},
    "eyewear": {"none": 0.6, "glasses": 0, "sunglasses": -0.2},
    "facial_hair": {"none": 0.2, "moustache": 0, "goatee": -0.2, "beard": 0},
    "expression": {"neutral": 0, "smile": 0, "surprised": -0.2},
    "hat": {"none": 1.2, "cap": 0, "beanie": 0, "wide": 0},
    "hat_color": dict.fromkeys(COLORS, 0),
    "earrings": {"none": 0.4, "gold": 0},
    "lipstick": {"none": 0.2, "red": 0},
    "clothes": dict.fromkeys(COLORS, 0),
    "background": {"white": 0, "gray": 0, "blue": 0, "green": 0, "yellow": 0, "pink": 0, "black": 0},
}
ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType({name: tuple(row) for name, row in _TABLE.items()})

# Continuous variation that captions do not mention. Standard normal, clipped to -2 .. 2.
TRAITS = (
    *("head_width", "head_height", "jaw", "eye_spacing", "eye_size", "nose", "mouth_width", "mouth_height"),
    *("brow_height", "ears", "neck", "shoulders", "skin_shade", "hair_shade", "clothes_shade", "background_shade"),
)

NUM_VALUES = sum(len(values) for values in ATTRIBUTES.values())
Z_DIM = NUM_VALUES + len(TRAITS)
_SLICES: dict[str, slice] = {}
_BIASES = np.zeros(NUM_VALUES, np.float32)
for _name, _row in _TABLE.items():
    _start = sum(len(values) for values in list(ATTRIBUTES.values())[: len(_SLICES)])
    _SLICES[_name] = slice(_start, _start + len(_row))
    _BIASES[_SLICES[_name]] = list(_row.values())

Attributes = dict[str, str]

# Pairs that never occur together in the training data. Prompts that combine them test composition.
HELD_OUT: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("hair_color", "pink"), ("eyewear", "glasses")),
    (("hair_color", "blue"), ("facial_hair", "beard")),
    (("hair_color", "red"), ("hat", "wide")),
    (("hair_style", "curly"), ("hair_color", "blond")),
    (("hat", "beanie"), ("eyewear", "sunglasses")),
)


def sample_codes(count: int, seed: int) -> np.ndarray:
    """Draw identity codes [count, Z_DIM]. The first n are the same for every count >= n."""
    if count < 0:
        raise ValueError(f"count={count}: cannot be negative")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((count, Z_DIM), np.float32)


def read_code(z: np.ndarray) -> tuple[Attributes, np.ndarray]:
    """Return the attributes and the traits [len(TRAITS)], within -2 .. 2, of an identity code z [Z_DIM]."""
    if z.shape != (Z_DIM,):
        raise ValueError(f"an identity code has {Z_DIM} numbers, got shape {list(z.shape)}")
    scores = z[:NUM_VALUES] + _BIASES
    attributes = {name: values[int(scores[_SLICES[name]].argmax())] for name, values in ATTRIBUTES.items()}
    return settle(attributes), np.clip(z[NUM_VALUES:], -2, 2)


def settle(attributes: Attributes) -> Attributes:
    """Return a copy in which values that cannot occur together are replaced.

    For example, hats hide buns, facial hair is for men, and lipstick and earrings are for women.
    """
    a = dict(attributes)
    if a["gender"] == "woman":
        a["facial_hair"] = "none"
        a["hair_style"] = "long" if a["hair_style"] == "bald" else a["hair_style"]
    else:
        a["lipstick"] = a["earrings"] = "none"
        a["hair_style"] = "short" if a["hair_style"] == "bun" else a["hair_style"]
    if a["hat"] != "none" and a["hair_style"] == "bun":
        a["hair_style"] = "short"
    if a["hair_style"] == "long":
        a["earrings"] = "none"  # long hair would hide them
    if a["age"] == "old" and a["hair_color"] in ("black", "brown"):
        a["hair_color"] = "gray"
    return a


def make_attributes(**chosen: str) -> Attributes:
    """Return the chosen attributes with plain values for the rest.

    Raise ValueError if a name or value is unknown, or if the chosen values cannot occur together.
    """
    check_attributes(chosen)
    plain = {name: values[0] for name, values in ATTRIBUTES.items()} | {"hat_color": "blue", "background": "white"}
    plain["clothes"] = "green"
    if chosen.get("facial_hair", "none") != "none":
        plain["gender"] = "man"
    settled = settle(plain | chosen)
    lost = {name: value for name, value in chosen.items() if settled[name] != value}
    if lost:
        raise ValueError(f"these cannot be together with the others, or be seen: {lost}; all chosen: {chosen}")
    return settled


def check_attributes(chosen: Mapping[str, str]) -> None:
    """Raise ValueError unless all names and values are known."""
    for name, value in chosen.items():
        if name not in ATTRIBUTES:
            raise ValueError(f"unknown attribute {name!r}; known are {', '.join(ATTRIBUTES)}")
        if value not in ATTRIBUTES[name]:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(ATTRIBUTES[name])}")


def is_visible(attributes: Attributes, name: str) -> bool:
    """Return whether a picture from the front shows this attribute."""
    a = attributes
    hidden = {
        "hair_color": a["hair_style"] == "bald" and a["facial_hair"] == "none",
        "eye_color": a["eyewear"] == "sunglasses",
        "hat_color": a["hat"] == "none",
    }
    return not hidden.get(name, False)


def is_held_out(attributes: Attributes) -> bool:
    """Return whether a face visibly has a pair of HELD_OUT, which training never shows."""
    return any(
        all(attributes[name] == value and is_visible(attributes, name) for name, value in pair) for pair in HELD_OUT
    )


def to_vector(attributes: Attributes, traits: np.ndarray) -> np.ndarray:
    """Return a vector [Z_DIM]: one-hot attribute values, with zeros for hidden attributes, then the traits."""
    out = np.zeros(Z_DIM, np.float32)
    for name, values in ATTRIBUTES.items():
        if is_visible(attributes, name):
            out[_SLICES[name].start + values.index(attributes[name])] = 1
    out[NUM_VALUES:] = traits
    return out

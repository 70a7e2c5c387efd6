"""Instructions for a picture editor: "turn the head into a gold statue", "give it a red wide hat", "without glasses".

An instruction names only what changes, so that an editor learns to keep the rest.
"""

from collections.abc import Mapping

from dreamportrait.miniworld import grammar
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes
from dreamportrait.miniworld.grammar import ABSENT, Draw, an
from dreamportrait.miniworld.styles import Style

_INTO = ("turn the head into {}", "turn the head into {}", "make it {}", "turn it into {}")
_GIVE = ("give it {}", "add {}", "with {}")
_MAKE = ("make it {}", "make the head {}")
_ADJECTIVES = ("age", "expression")
_BACKGROUND = ("put it in front of {} wall", "on {} background", "change the background to {} wall")


def styling(style: Style, draw: Draw) -> str:
    """Return an instruction that asks for a style, and never for a hidden variant."""
    return draw.pick(_INTO).format(an(draw.pick((style.name, *style.phrases))))


def changing(changed: Attributes, draw: Draw) -> str:
    """Return an instruction that asks for new values of attributes: of one, or of a hat and its colour."""
    name = next(iter(changed))
    value = changed[name]
    if set(changed) == {"hat", "hat_color"}:
        hat = grammar.colored(changed["hat_color"], draw.say(grammar.HATS, changed["hat"]))
        return draw.pick(_GIVE).format(an(hat))
    if len(changed) != 1:
        raise ValueError(f"changed={changed}: one attribute, or hat and hat_color")
    if value == "none":
        what = ABSENT[name][0]
        others = ("make it clean-shaven",) if name == "facial_hair" else ()
        return draw.pick((*_taking(what), *others))
    if name == "background":
        return draw.pick(_BACKGROUND).format(an(draw.say(grammar.GRAY, value)))
    if name == "gender":
        return draw.pick(_INTO[2:]).format(an(draw.say(grammar.NOUNS, value)))
    if name in _ADJECTIVES or (name, value) == ("hair_style", "bald"):
        words: Mapping[str, tuple[str, ...]] = grammar.AGES if name == "age" else grammar.MOODS
        return draw.pick(_MAKE).format(draw.say(words, value))
    return draw.pick(_GIVE).format(_thing(name, value, draw))


def joined(styled: str, changed: str) -> str:
    """Return one instruction that asks for both."""
    return f"{styled}, {changed}" if changed.startswith(("with", "on ")) else f"{styled} and {changed}"


def words() -> str:
    """Return the words of instructions that frame those of captions."""
    options = [*_INTO, *_GIVE, *_taking(""), *_MAKE, *_BACKGROUND, "and clean-shaven"]
    return " ".join(options).replace("{}", " ")


def _taking(what: str) -> tuple[str, ...]:
    """Return "without a hat", "remove the hat", "take off the hat" for "a hat"."""
    known = f"the {what.removeprefix('a ')}"
    return f"without {what}", f"remove {known}", f"take off {known}"


def _thing(name: str, value: str, draw: Draw) -> str:
    """Return words for what the head gets."""
    if name == "skin":
        return f"{draw.say(grammar.SKIN, value)} skin"
    if name == "eye_color":
        return f"{value} eyes"
    if name == "hair_color":
        return f"{draw.say(grammar.HAIR, value)} hair"
    if name == "hair_style":
        return "a bun" if value == "bun" else f"{value} hair"
    if name == "eyewear":
        return draw.say(grammar.EYEWEAR, value)
    if name == "facial_hair":
        return an(draw.say(grammar.FACIAL_HAIR, value))
    if name == "hat":
        return an(draw.say(grammar.HATS, value))
    if name == "hat_color":
        return an(f"{value} hat")
    if name == "earrings":
        return draw.pick(grammar.EARRINGS)
    if name == "lipstick":
        return draw.pick(grammar.LIPSTICK)
    if name == "clothes":
        return an(f"{value} {draw.pick(grammar.GARMENTS)}")
    raise ValueError(f"name={name!r}: must be one of {', '.join(ATTRIBUTES)}")

"""English captions of styled heads from any side: style, attributes, absences, view, quality.

A caption states only what its picture shows: attributes that the style keeps, seen from that side. It names the style
of every styled head, says "blurred" of every blurred picture, and never mentions hidden variants. The words for the
attributes are those of grammar.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamportrait.miniworld import captions as plain
from dreamportrait.miniworld import grammar
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible
from dreamportrait.miniworld.grammar import Draw, an, split_words
from dreamportrait.miniworld.instructions import words
from dreamportrait.miniworld.styles import STYLES, Style

# Yaw in degrees up to which an attribute can be seen. Those that are not named can be seen from all sides.
_SEEN_WITHIN = {
    "gender": 110,
    "age": 70,
    "skin": 110,
    "eye_color": 50,
    "eyewear": 90,
    "facial_hair": 90,
    "expression": 70,
    "earrings": 60,
    "lipstick": 70,
}
# Yaw in degrees up to which a view has this name, and the words for it. {} is the side that the face looks to.
_VIEWS = (
    (30, ("front view", "seen from the front", "facing the camera")),
    (70, ("three quarter view, facing {}", "turned to the {}")),
    (110, ("side view, facing {}", "in profile, facing {}", "seen from the side, facing {}")),
    (180, ("seen from behind", "back view", "back of the head")),
)
SHARP = ("sharp", "detailed", "clear", "sharp, detailed", "high quality")
BLURRED = ("blurred", "blurry", "unclear", "low quality")
_GENDERS = {"woman": "female", "lady": "female", "girl": "young female"} | dict.fromkeys(
    ("man", "guy", "gentleman"), "male"
)
SPARE = ("spare1", "spare2", "spare3", "spare4")  # words without a meaning yet, for styles that are learnt later

_STYLED_COUNTS = (0, 1, 1, 2, 2, 3, 4, 5)  # numbers of attributes in a caption of a styled head, all equally likely
_PLAIN_COUNTS = (2, 3, 4, 4, 5, 5, 6)
_EVALUATION_COUNT = 5
_TELLS_VIEW, _TELLS_SHARP = 0.6, 0.3  # shares of the captions
_CAPTIONS, _EVALUATION = 2, 3  # independent random streams of one seed; plain captions have 0 and 1


@dataclass(frozen=True)
class Seen:
    """A head as a picture shows it."""

    face: Attributes
    style: Style | None  # None = a plain head
    yaw: float  # degrees, -180 to 180: that of `orbit`, positive to the right of the front
    blurred: bool = False

    def sayable(self) -> list[str]:
        """Return the attributes that a caption may state: visible ones whose value is not "none"."""
        return [name for name in self.visible() if self.face[name] != "none"]

    def visible(self) -> list[str]:
        """Return the attributes whose values can be seen."""
        kept = ATTRIBUTES if self.style is None else self.style.keeps
        names = [name for name in ATTRIBUTES if name in kept and is_visible(self.face, name) and self._faces(name)]
        bare = self.face["hair_style"] == "bald" and "facial_hair" not in names  # only facial hair has the hair colour
        return [name for name in names if not (bare and name == "hair_color")]

    def deniable(self) -> list[str]:
        """Return the attributes whose absence can be seen."""
        kept = ATTRIBUTES if self.style is None else self.style.keeps
        return [name for name in plain.lacking(self.face) if name in kept and self._faces(name)]

    def _faces(self, name: str) -> bool:
        return abs(self.yaw) <= _SEEN_WITHIN.get(name, 180)


def captions(seen: Seen, seed: int, count: int = 10, deny: float = 0.0) -> list[str]:
    """Return `count` captions that all differ. The first n are the same for every count >= n.

    deny: share of the captions that also say what is absent ("without glasses").
    """
    draw, found = _stream(seed, _CAPTIONS), dict[str, None]()
    while len(found) < count:
        counts = _STYLED_COUNTS if seen.style else _PLAIN_COUNTS
        names = plain.extend(seen.face, set(), draw.pick(counts), draw, seen.sayable())
        missing = tuple(seen.deniable()) if deny else ()
        absent = (draw.pick(missing),) if missing and draw.chance(deny) else ()
        text = _body(seen, names, draw, absent)
        said = [view_words(seen.yaw, draw)] if draw.chance(_TELLS_VIEW) else []
        if seen.blurred:
            said.append(draw.pick(BLURRED))
        elif draw.chance(_TELLS_SHARP):
            said.append(draw.pick(SHARP))
        found.setdefault(_joined(text, said, draw))
    return list(found)


def evaluation_caption(seen: Seen, seed: int) -> str:
    """Return the caption for retrieval: the style, five attributes where so many can be seen, and the view."""
    draw = _stream(seed, _EVALUATION)
    text = _body(seen, _evaluation_names(seen, draw), draw)
    return _joined(text, [view_words(seen.yaw, draw), *([draw.pick(BLURRED)] if seen.blurred else [])], draw)


def evaluation_facts(seen: Seen, seed: int) -> Attributes:
    """Return exactly the attributes and values that evaluation_caption states for the same picture and seed."""
    names = _evaluation_names(seen, _stream(seed, _EVALUATION))
    return {name: seen.face[name] for name in ATTRIBUTES if name in names}


def vocabulary() -> list[str]:
    """Return every word and punctuation mark of captions and instructions, and the spare words, sorted."""
    phrases = [words(), *SHARP, *BLURRED, *SPARE, *_GENDERS.values(), "of it left right"]  # of: "a statue of a man"
    phrases += [phrase for _, options in _VIEWS for phrase in options]
    phrases += [phrase for style in STYLES for phrase in style.phrases]
    found = {word for phrase in phrases for word in split_words(phrase.replace("{}", " "))}
    return sorted(found | set(grammar.vocabulary()))


def view_words(yaw: float, draw: Draw) -> str:
    """Return words for a view. A camera to the right of the front sees a face that looks to the left."""
    options = next(options for most, options in _VIEWS if abs(yaw) <= most)
    return draw.pick(options).format("left" if yaw > 0 else "right")


def _evaluation_names(seen: Seen, draw: Draw) -> set[str]:
    return plain.extend(seen.face, set(), _EVALUATION_COUNT, draw, seen.sayable())


def _body(seen: Seen, names: set[str], draw: Draw, absent: Sequence[str] = ()) -> str:
    if seen.style is None:
        return _turned(grammar.state(seen.face, names, draw, absent), seen.yaw)
    phrase = draw.pick((seen.style.name, *seen.style.phrases))
    named = depicted if seen.style.depicts else somebody
    text = grammar.state(seen.face, names, draw, absent, lambda adjectives, noun: named(phrase, adjectives, noun))
    return _turned(text.replace(". this person ", ". it "), seen.yaw)


def _turned(text: str, yaw: float) -> str:
    """Return the text without a mention of the face if only the back of the head is seen."""
    return text.replace("the face of ", "a 3D head of ") if abs(yaw) > _VIEWS[-2][0] else text


def depicted(phrase: str, adjectives: Sequence[str], noun: str) -> str:
    """Return "gold statue of an old man" for the gold statue, the adjective old and the noun man."""
    who = grammar.person(adjectives, noun)
    told, _, lacks = who.partition("person")  # nothing comes before it if neither gender nor adjectives are told
    return f"{phrase} of {an(who)}" if told else f"{phrase}{lacks}"


def somebody(phrase: str, adjectives: Sequence[str], noun: str) -> str:
    """Return "old male elf" for the elf, the adjective old and the noun man."""
    who, _, lacks = noun.partition(" without ")
    head, _, rest = phrase.partition(" with ")
    words = [*adjectives, *([_GENDERS[who]] if who in _GENDERS else []), head]
    return " ".join([*words, *(["with", rest] if rest else []), *(["without", lacks] if lacks else [])])


def _joined(text: str, said: Sequence[str], draw: Draw) -> str:
    """Add words about the picture, before or after what it shows."""
    if not said:
        return text
    if text.endswith("."):
        return f"{text} {', '.join(said)}."
    return ", ".join([*said, text] if draw.chance(0.25) else [text, *said])


def _stream(seed: int, use: int) -> Draw:
    if seed < 0:
        raise ValueError(f"seed={seed}: cannot be negative")
    return Draw(np.random.Generator(np.random.PCG64([seed, use])))

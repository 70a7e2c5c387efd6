"""Wording of captions: words, adjectives, what the person has and wears, the background, four sentence forms.

A caption states exactly the attributes that are passed in, and denies exactly those that are passed in as absent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes

T = TypeVar("T")

# Words for each value, drawn at random. A value without an entry is written as it is.
HAIR = {
    "brown": ("brown", "brown", "chestnut"),
    "blond": ("blond", "blonde", "golden"),
    "red": ("red", "red", "ginger"),
    "gray": ("gray", "gray", "grey", "silver"),
}
GRAY = {"gray": ("gray", "grey")}
SKIN = {"pale": ("pale", "fair", "light"), "tan": ("tan", "tanned")}
NOUNS = {"woman": ("woman", "woman", "lady"), "man": ("man", "man", "guy", "gentleman")}
_PRONOUNS = {"woman": "she", "man": "he"}
AGES = {"young": ("young",), "old": ("old", "old", "elderly")}
EYEWEAR = {
    "glasses": ("glasses", "glasses", "eyeglasses", "spectacles"),
    "sunglasses": ("sunglasses", "sunglasses", "dark glasses", "shades"),
}
FACIAL_HAIR = {
    "moustache": ("moustache", "mustache"),
    "goatee": ("goatee",),
    "beard": ("beard", "beard", "full beard"),
}
HATS = {
    "cap": ("cap", "cap", "baseball cap"),
    "beanie": ("beanie", "beanie", "knit cap"),
    "wide": ("wide hat", "sun hat", "wide-brimmed hat"),
}
MOODS = {  # adjectives
    "neutral": ("serious", "calm"),
    "smile": ("smiling", "smiling", "grinning", "happy", "cheerful"),
    "surprised": ("surprised", "shocked"),
}
_EXPRESSIONS = {  # nouns, after "with" or "has"
    "neutral": ("a neutral expression", "a serious face"),
    "smile": ("a smile", "a big smile", "a happy smile"),
    "surprised": ("an open mouth", "a surprised expression"),
}
EARRINGS = ("gold earrings", "golden earrings", "earrings")
LIPSTICK = ("red lipstick", "red lips")
# Things that a caption may deny: after "without", and after "no".
ABSENT = {
    "eyewear": ("glasses", "glasses"),
    "hat": ("a hat", "hat"),
    "facial_hair": ("a beard", "beard"),
    "earrings": ("earrings", "earrings"),
    "lipstick": ("lipstick", "lipstick"),
}
GARMENTS = ("shirt", "shirt", "top", "sweater", "jumper")
_STARTS = (
    *("",) * 6,
    *("a photo of", "a portrait of", "portrait of", "a picture of", "a 3D head of", "a 3D portrait of", "the face of"),
    *("a headshot of", "a close-up of", "a 3D render of", "an image of"),
)
_PLACES = (
    *("on {} background", "on {} background", "against {} background", "against {} backdrop"),
    *("in front of {} background", "in front of {} wall"),
)
_FUNCTION_WORDS = (
    "a an the this with in on and has who wears wearing is dressed person redhead bald head bearded haired skinned "
    "hair long short curly curls skin eyes eyed hat clothes girl bun tied brunette background "
    "without no clean shaven , . -"
)


class Draw:
    """Random choices. Numbers are drawn in blocks, because single draws from NumPy would take most of the time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.numbers: list[float] = []

    def number(self) -> float:
        if not self.numbers:
            self.numbers = self.rng.random(32).tolist()
        return self.numbers.pop()

    def chance(self, probability: float) -> bool:
        return self.number() < probability

    def pick(self, options: tuple[T, ...]) -> T:
        return options[int(self.number() * len(options))]

    def say(self, words: Mapping[str, tuple[str, ...]], value: str) -> str:
        return self.pick(words.get(value, (value,)))

    def shuffle(self, items: list[str]) -> None:
        for i in range(len(items) - 1, 0, -1):
            j = int(self.number() * (i + 1))
            items[i], items[j] = items[j], items[i]


Subject = Callable[[Sequence[str], str], str]  # adjectives, noun -> words for the head, without an article


def person(adjectives: Sequence[str], noun: str) -> str:
    return " ".join([*adjectives, noun])


@dataclass
class _Parts:
    """The words of a caption before a sentence form is chosen."""

    subject: Subject = person
    adjectives: list[str] = field(default_factory=list)
    noun: str = "person"
    pronoun: str = "this person"
    has: list[str] = field(default_factory=list)
    wears: list[str] = field(default_factory=list)
    attire: bool = True  # whether every item in `wears` can follow "in"
    background: str = ""  # colour of the background


def vocabulary() -> list[str]:
    """Return every word and punctuation mark that captions can contain, sorted.

    Compounds such as red-haired count as their parts.
    """
    phrases = [_FUNCTION_WORDS, *EARRINGS, *LIPSTICK, *GARMENTS, *_STARTS, *_PLACES, *_PRONOUNS.values()]
    for table in (HAIR, GRAY, SKIN, NOUNS, AGES, EYEWEAR, FACIAL_HAIR, HATS, MOODS, _EXPRESSIONS):
        phrases += [phrase for options in table.values() for phrase in options]
    for name in ("skin", "hair_color", "eye_color", "hat_color", "clothes", "background"):
        phrases += ATTRIBUTES[name]
    return sorted({word for phrase in phrases for word in split_words(phrase.replace("{}", " "))})


def split_words(caption: str) -> list[str]:
    """Split a caption into words and punctuation marks, as vocabulary() counts them."""
    return re.findall(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]", caption)


def state(a: Attributes, names: set[str], draw: Draw, absent: Sequence[str] = (), subject: Subject = person) -> str:
    """Return a caption that states the attributes `names` and denies `absent`.

    The caller ensures that `names` are visible and not "none", and that `absent` are keys of ABSENT and "none".
    """
    parts = _parts(a, names, draw)
    parts.subject = subject
    _deny(parts, absent, draw)
    form = draw.pick(_FORMS)
    text = form(parts, draw)
    start = draw.pick(_STARTS)
    return f"{start} {text}" if start and text.startswith(("a ", "an ")) else text


def _parts(a: Attributes, names: set[str], draw: Draw) -> _Parts:
    """Choose the words. Adjectives are added in the usual English order."""
    p = _Parts()
    if "expression" in names:
        if draw.chance(0.6):
            p.adjectives.append(draw.say(MOODS, a["expression"]))
        else:
            p.has.append(draw.say(_EXPRESSIONS, a["expression"]))
    _add_person(p, a, names, draw)
    _add_hair(p, a, names, draw)
    if "skin" in names:
        skin = draw.say(SKIN, a["skin"])
        if len(p.adjectives) < 2 and draw.chance(0.3):
            p.adjectives.append(f"{a['skin']}-skinned")
        else:
            p.has.append(f"{skin} skin")
    if "eye_color" in names:
        if len(p.adjectives) < 2 and draw.chance(0.15):
            p.adjectives.append(f"{a['eye_color']}-eyed")
        else:
            p.has.append(f"{a['eye_color']} eyes")
    _add_worn(p, a, names, draw)
    if "background" in names:
        p.background = draw.say(GRAY, a["background"])
    draw.shuffle(p.has)
    draw.shuffle(p.wears)
    return p


def _deny(p: _Parts, absent: Sequence[str], draw: Draw) -> None:
    """Add words for what the person does not have."""
    lacks = []
    for name in absent:
        after_without, after_no = ABSENT[name]
        if name == "facial_hair" and draw.chance(0.3):
            p.adjectives.insert(0, "clean-shaven")
        elif draw.chance(0.5):
            p.has.append(f"no {after_no}")
        else:
            lacks.append(after_without)
    if lacks:
        p.noun = f"{p.noun} without {_list(lacks)}"


def _add_person(p: _Parts, a: Attributes, names: set[str], draw: Draw) -> None:
    girl = {"gender", "age"} <= names and (a["gender"], a["age"]) == ("woman", "young") and draw.chance(0.4)
    if "gender" in names:
        p.noun, p.pronoun = draw.say(NOUNS, a["gender"]), _PRONOUNS[a["gender"]]
    if girl:
        p.noun = "girl"
    elif "age" in names:
        p.adjectives.append(draw.say(AGES, a["age"]))


def _add_hair(p: _Parts, a: Attributes, names: set[str], draw: Draw) -> None:
    """Add hair and facial hair. Both have the same colour, which is stated for only one of them."""
    color = draw.say(HAIR, a["hair_color"]) if "hair_color" in names else ""
    style = a["hair_style"] if "hair_style" in names else ""
    bald = a["hair_style"] == "bald"
    of_beard = color if "facial_hair" in names and (bald or (not style and draw.chance(0.4))) else ""
    if "facial_hair" in names:
        if a["facial_hair"] == "beard" and not of_beard and draw.chance(0.2):
            p.adjectives.append("bearded")
        else:
            p.has.append(an(colored(of_beard, draw.say(FACIAL_HAIR, a["facial_hair"]))))
    color = "" if of_beard else color
    if bald and style:
        if draw.chance(0.8):
            p.adjectives.append("bald")
        else:
            p.has.append("a bald head")
    elif style:
        p.has.append(_hair(color, style, draw))
    elif color:
        _add_color(p, color, draw)


def _add_color(p: _Parts, color: str, draw: Draw) -> None:
    if p.adjectives or draw.chance(0.65):
        p.has.append(f"{color} hair")
    elif color == "red" and p.noun == "person":
        p.noun = "redhead"
    elif color == "red" and draw.chance(0.5):
        p.adjectives.append("redhead")
    elif color in ("brown", "chestnut") and draw.chance(0.4):
        p.adjectives.append("brunette")
    elif color in ("blond", "blonde"):
        p.adjectives.append(color)
    else:
        p.adjectives.append(f"{color}-haired")


def _hair(color: str, style: str, draw: Draw) -> str:
    if style == "bun":
        tied = draw.pick(("in a bun", "tied in a bun", ""))
        return f"{color} hair {tied}".strip() if tied else an(f"{color} bun".strip())
    if style == "curly" and draw.chance(0.25):
        return f"{color} curls".strip()
    return f"{style} {color} hair" if color else f"{style} hair"


def _add_worn(p: _Parts, a: Attributes, names: set[str], draw: Draw) -> None:
    """Add worn items. Glasses, earrings and lipstick go to `has` or `wears` at random."""
    if "eyewear" in names:
        _add_small(p, draw.say(EYEWEAR, a["eyewear"]), draw)
    if "earrings" in names:
        _add_small(p, draw.pick(EARRINGS), draw)
    if "lipstick" in names:
        lips = draw.pick(LIPSTICK)
        if lips == "red lips":
            p.has.append(lips)
        else:
            _add_small(p, lips, draw)
    if "hat" in names or "hat_color" in names:
        hat = draw.say(HATS, a["hat"]) if "hat" in names else "hat"
        color = a["hat_color"] if "hat_color" in names else ""
        p.wears.append(an(colored(color, hat)))
    if "clothes" in names:
        garment = f"{a['clothes']} {draw.pick(GARMENTS)}"
        p.wears.append(an(garment) if draw.chance(0.85) else f"{a['clothes']} clothes")


def _add_small(p: _Parts, thing: str, draw: Draw) -> None:
    if draw.chance(0.5):
        p.has.append(thing)
    else:
        p.wears.append(thing)
        p.attire = False


def colored(color: str, thing: str) -> str:
    """Add a colour to a noun. The size comes before the colour: a wide red hat, but a red sun hat."""
    size, _, noun = thing.rpartition(" ")
    return " ".join(f"{size} {color} {noun}".split() if size in ("wide", "full") else f"{color} {thing}".split())


def an(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _list(things: list[str]) -> str:
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def _subject(p: _Parts) -> str:
    return p.subject(p.adjectives, p.noun)


def _place(p: _Parts, draw: Draw) -> str:
    return draw.pick(_PLACES).format(an(p.background))


def _worn(p: _Parts, draw: Draw) -> str:
    return draw.pick(("in", "wearing", "dressed in") if p.attire else ("wearing",)) + f" {_list(p.wears)}"


# Sentence forms.


def _plain(p: _Parts, draw: Draw) -> str:
    """Write "a woman with red hair and glasses, wearing a blue top on a white background"."""
    clauses = ([f"with {_list(p.has)}"] if p.has else []) + ([_worn(p, draw)] if p.wears else [])
    if draw.chance(0.3):
        clauses.reverse()
    if p.background:
        clauses.append(_place(p, draw) if p.has or draw.chance(0.6) else f"with {an(p.background)} background")
    text = an(_subject(p))
    for i, clause in enumerate(clauses):
        text += (", " if i and " and " in clauses[i - 1] else " ") + clause
    return text


def _tags(p: _Parts, draw: Draw) -> str:
    """Write "a woman, red hair, glasses, white background"."""
    things = [*p.has, *p.wears]
    draw.shuffle(things)
    return ", ".join([an(_subject(p)), *things, *([f"{p.background} background"] if p.background else [])])


def _predicate(p: _Parts) -> str:
    has, wears = (f"{verb} {_list(things)}" if things else "" for verb, things in (("has", p.has), ("wears", p.wears)))
    return (", and " if " and " in has else " and ").join(clause for clause in (has, wears) if clause)


def _clause(p: _Parts, draw: Draw) -> str:
    """Write "this woman has red hair and wears glasses, on a white background"."""
    predicate = _predicate(p)
    if not predicate:
        return _plain(p, draw)
    subject = f"{draw.pick(('the', 'this'))} {_subject(p)}" if draw.chance(0.5) else f"{an(_subject(p))} who"
    return f"{subject} {predicate}" + (f", {_place(p, draw)}" if p.background else "")


def _sentences(p: _Parts, draw: Draw) -> str:
    """Write sentences ("a woman. she has red hair and wears glasses. the background is white.")."""
    predicate = _predicate(p)
    return ". ".join(
        [
            an(_subject(p)),
            *([f"{p.pronoun} {predicate}"] if predicate else []),
            *([f"the background is {p.background}"] if p.background else []),
        ]
    ) + ("." if predicate or p.background else "")


_FORMS: tuple[Callable[[_Parts, Draw], str], ...] = (*(_plain,) * 5, *(_tags,) * 2, *(_clause,) * 2, _sentences)

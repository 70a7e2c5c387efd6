"""Read captions of the miniature world back into attributes, by separate rules. Every word must have a meaning."""

import re

_CANONICAL = {"grey": "gray", "silver": "gray", "blonde": "blond", "golden": "blond", "ginger": "red"} | {
    "chestnut": "brown",
    "fair": "pale",
    "light": "pale",
    "tanned": "tan",
}
_COLORS = {"red", "blue", "green", "yellow", "orange", "purple", "white", "black", "gray", "pink", "brown", "blond"}
_SKINS = {"pale", "tan", "brown", "dark"}

# Words that state a fact in any position.
_FACTS = {
    **dict.fromkeys(("woman", "lady", "she"), ("gender", "woman")),
    **dict.fromkeys(("man", "guy", "gentleman", "he"), ("gender", "man")),
    **dict.fromkeys(("old", "elderly"), ("age", "old")),
    "young": ("age", "young"),
    **dict.fromkeys(("serious", "calm", "neutral"), ("expression", "neutral")),
    **dict.fromkeys(("smiling", "grinning", "happy", "cheerful", "smile"), ("expression", "smile")),
    **dict.fromkeys(("surprised", "shocked", "open"), ("expression", "surprised")),
    "bald": ("hair_style", "bald"),
    **dict.fromkeys(("bearded", "beard"), ("facial_hair", "beard")),
    "goatee": ("facial_hair", "goatee"),
    **dict.fromkeys(("moustache", "mustache"), ("facial_hair", "moustache")),
    "brunette": ("hair_color", "brown"),
    "redhead": ("hair_color", "red"),
    "curls": ("hair_style", "curly"),
    "bun": ("hair_style", "bun"),
    **dict.fromkeys(("eyeglasses", "spectacles"), ("eyewear", "glasses")),
    **dict.fromkeys(("sunglasses", "shades"), ("eyewear", "sunglasses")),
    "beanie": ("hat", "beanie"),
    "earrings": ("earrings", "gold"),
    **dict.fromkeys(("lipstick", "lips"), ("lipstick", "red")),
}
# Nouns whose adjectives are the value of an attribute.
_DESCRIBED = {
    **dict.fromkeys(("hair", "curls", "bun", "beard", "goatee", "moustache", "mustache", "haired"), "hair_color"),
    **dict.fromkeys(("woman", "man", "lady", "guy", "gentleman", "girl", "person", "redhead"), "hair_color"),
    **dict.fromkeys(("skin", "skinned"), "skin"),
    **dict.fromkeys(("eyes", "eyed"), "eye_color"),
    **dict.fromkeys(("hat", "cap", "beanie"), "hat_color"),
    **dict.fromkeys(("shirt", "top", "sweater", "jumper", "clothes"), "clothes"),
    **dict.fromkeys(("background", "backdrop", "wall"), "background"),
    **dict.fromkeys(("earrings", "lipstick", "lips", "glasses"), ""),
}
_BETWEEN = {
    "a",
    "an",
    "the",
    "this",
    "with",
    "in",
    "on",
    "of",
    "and",
    "has",
    "who",
    "wears",
    "wearing",
    "dressed",
    "tied",
    "against",
    "front",
    ",",
    ".",
}
_STARTS = re.compile(
    r"^((a )?(photo|portrait|picture|headshot|close-up|3d (head|portrait|render)) of|an image of|the face of) "
)


def read(caption: str) -> dict[str, str]:
    """Return the stated attributes; hat = "any" for a hat without a kind. Raises AssertionError for other texts."""
    text = _STARTS.sub("", caption.lower())
    text = re.sub(r"the background is (\w+)", r"\1 background", text)
    words = re.findall(r"[\w-]+|[,.]", text)
    facts: dict[str, str] = {}
    waiting: list[str] = []  # adjectives before their noun
    for word in words:
        compound = re.fullmatch(r"(\w+)-(haired|skinned|eyed)", word)
        stated = _meaning(compound[2], [_canonical(compound[1])]) if compound else _meaning(word, waiting)
        for name, value in stated:
            assert facts.setdefault(name, value) == value, f"{name} is both {facts[name]} and {value}: {caption}"
        if compound:
            continue
        if word in _DESCRIBED or (word in _FACTS and word not in _ADJECTIVES):
            waiting = []
        elif word in _BETWEEN:
            assert not waiting, f"{waiting} describe nothing: {caption}"
        elif word not in _FACTS and word not in _PLAIN:
            waiting.append(_canonical(word))
    assert not waiting, f"{waiting} describe nothing: {caption}"
    return facts


_ADJECTIVES = {
    "old",
    "elderly",
    "young",
    "serious",
    "calm",
    "neutral",
    "smiling",
    "grinning",
    "happy",
    "cheerful",
    "surprised",
    "shocked",
    "open",
    "bald",
}
_ADJECTIVES |= {"bearded", "brunette", "redhead"}
_PLAIN = {"full", "big", "head", "face", "mouth", "expression"}  # they belong to words that already state the fact
_KINDS = {
    ("hat", "wide"): ("hat", "wide"),
    ("hat", "wide-brimmed"): ("hat", "wide"),
    ("hat", "sun"): ("hat", "wide"),
    ("cap", "knit"): ("hat", "beanie"),
    ("cap", "baseball"): ("hat", "cap"),
    ("glasses", "dark"): ("eyewear", "sunglasses"),
    ("hair", "long"): ("hair_style", "long"),
    ("hair", "short"): ("hair_style", "short"),
    ("hair", "curly"): ("hair_style", "curly"),
}
_DEFAULTS = {"hat": ("hat", "any"), "cap": ("hat", "cap"), "glasses": ("eyewear", "glasses")}


def _canonical(word: str) -> str:
    return _CANONICAL.get(word, word)


def _meaning(word: str, waiting: list[str]) -> list[tuple[str, str]]:
    stated = [_FACTS[word]] if word in _FACTS else []
    if word == "girl":
        stated = [("gender", "woman"), ("age", "young")]
    if word not in _DESCRIBED:
        return stated
    kinds = {_KINDS[word, adjective] for adjective in waiting if (word, adjective) in _KINDS}
    stated += kinds or ([_DEFAULTS[word]] if word in _DEFAULTS else [])
    for adjective in waiting:
        if (word, adjective) in _KINDS:
            continue
        if word in ("earrings", "lipstick", "lips"):
            assert adjective in {"earrings": ("gold", "blond"), "lipstick": ("red",), "lips": ("red",)}[word], adjective
            continue
        name = _DESCRIBED[word]
        assert name and adjective in (_SKINS if name == "skin" else _COLORS), f"a {adjective} {word}"
        stated.append((name, adjective))
    return stated

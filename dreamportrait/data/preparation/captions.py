"""Cleans captions, and refuses what cannot be one.

Cleaning changes nothing that CLIP's tokenizer would see as another word: control characters and runs of white space
become one space, typographic quotation marks become plain, Unicode is composed (NFC), and a caption that is written
twice counts once.
"""

import re
import unicodedata
from collections.abc import Sequence

from dreamportrait.data.preparation.pictures import Unusable

LONGEST = 600  # characters; CLIP reads 75 tokens
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u200b": "", "\ufeff": ""})
_SIDES = re.compile(r"\b(?:left|right)(?:most|wards?)?\b(?!-(?:angled|handed))", re.IGNORECASE)


def clean(text: str) -> str:
    """Return a caption in plain form; empty if nothing is left."""
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return re.sub(r"\s+", " ", text).strip()


def clean_captions(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the cleaned, different captions in their order. Raise Unusable if one is unreadable or none is left."""
    found = tuple(dict.fromkeys(text for text in map(clean, texts) if text))
    if not found:
        raise Unusable("no caption")
    if broken := [text for text in found if "\ufffd" in text]:
        raise Unusable(f"a caption has unreadable characters: {ascii(broken[0][:40])}")
    if long := [text for text in found if len(text) > LONGEST]:
        raise Unusable(f"a caption has {len(long[0])} characters, at most {LONGEST} are used")
    return found


def caption_lines(content: bytes) -> list[str]:
    """Return the lines of a caption file, or raise Unusable. A line is a caption."""
    if not content.strip():
        raise Unusable("its caption file is empty")
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Unusable(f"its captions are not UTF-8 (byte {error.start})") from None


def names_a_side(text: str) -> bool:
    """Return whether a caption says left or right, so that it would be false of the mirrored picture."""
    return _SIDES.search(text) is not None

"""Names of files that a user did not name."""

import re
import unicodedata
from pathlib import Path

LONGEST = 40  # letters of the prompt in a name


def default_name(prompt: str, seed: int, suffix: str) -> Path:
    """Return a file in the current folder named after the prompt: "A man, 70" with seed 3 gives a-man-70-3.png.

    A prompt without letters from a to z and without digits gives "portrait".
    """
    return Path(f"{slug(prompt) or 'portrait'}-{seed}{suffix}")


def slug(text: str) -> str:
    """Return a part of a file's name that is valid on every system, or "".

    Letters lose their accents, and everything but a to z and digits becomes a hyphen. Long texts are cut, where
    possible after a whole word.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > LONGEST:
        whole = words[: LONGEST + 1].rpartition("-")[0]
        words = whole or words[:LONGEST]
    return words

"""Prompts of edits: the enhanced prompt t* = {t, t_d, t_n} of a style, and files with several wordings of a style.

here          paper
style         t    "a gold statue"
decorative    t_d  "realistic, detail, 8k, photorealistic"
negative      t_n  "unclear facial features, non-face objects, ugly, bad"
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dreamportrait.core.errors import DataError, listed, shown
from dreamportrait.core.files import MEBIBYTE, read_text

_STYLE, _DECORATIVE = "{t}", "{t_d}"


class Instruction(NamedTuple):
    """What an edit is told to do, and what it is told to avoid."""

    positive: str
    negative: str


@dataclass(frozen=True)
class Wording:
    """How instructions are made of styles. The defaults are the paper's."""

    template: str = "turn the head into {t}, {t_d}"
    decorative: str = "realistic, detail, 8k, photorealistic"
    negative: str = "unclear facial features, non-face objects, ugly, bad"

    def __post_init__(self) -> None:
        if _STYLE not in self.template:
            raise ValueError(f"template={self.template!r}: must hold {_STYLE}, the place of the style's words")
        rest = self.template.replace(_STYLE, "").replace(_DECORATIVE, "")
        if "{" in rest or "}" in rest:
            raise ValueError(f"template={self.template!r}: knows only the places {_STYLE} and {_DECORATIVE}")

    def instruct(self, style: str) -> Instruction:
        """Return the instruction for a style."""
        style = " ".join(style.split())
        if not style:
            raise ValueError("the style is empty; say what the head is to become, such as 'a gold statue'")
        before, place, after = self.template.partition(_DECORATIVE)
        if place and not self.decorative:  # the separator before nothing goes
            before = before.rstrip(" ,")
        # The style last: its own braces stay as they are.
        return Instruction((before + self.decorative * bool(place) + after).replace(_STYLE, style), self.negative)


def read_styles(path: str | Path) -> list[str]:
    """Return the lines of a file of wordings. Raise DataError with all empty and repeated lines by their numbers."""
    try:
        lines = read_text(Path(path), MEBIBYTE).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"prompts {path} cannot be read: {error}; name a text file with one wording in each line"
        ) from None
    if not lines:
        raise DataError(f"prompts {path} is empty; write one wording of the style in each line")
    first: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        words = " ".join(line.split())
        key = words.casefold()
        if not words:
            problems.append(f"line {number} is empty")
        elif key in first:
            problems.append(f"line {number} repeats line {first[key]}: {shown(words, 40)}")
        else:
            first[key] = number
    if problems:
        raise DataError(f"prompts {path}: {listed(problems)}; remove these lines")
    return [" ".join(line.split()) for line in lines]

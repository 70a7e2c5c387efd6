"""Tests that docs/troubleshooting.md quotes messages as the program prints them."""

import ast
import re
from functools import cache

import pytest
from places import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
ROWS = [line.split("|")[1].strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
QUOTED = [row.strip("`") for row in ROWS if re.fullmatch("`[^`]{20,}`", row)]
VALUE = "\N{HORIZONTAL ELLIPSIS}"


@cache
def texts() -> list[str]:
    """Return all texts of the sources, with an ellipsis for each value that is put into them."""
    found = []
    for folder in ("dreamportrait", "eg3d_ops"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else VALUE for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def is_printed(message: str) -> bool:
    """Return whether one text of the sources has all parts of the message between its values, in order."""
    return any(_has_in_order(text, message.split(VALUE)) for text in texts())


def _has_in_order(text: str, parts: list[str]) -> bool:
    place = 0
    for part in parts:
        if (found := text.find(part, place)) < 0:
            return False
        place = found + len(part)
    return True


def test_there_are_messages() -> None:
    assert len(QUOTED) > 20


@pytest.mark.parametrize("message", QUOTED)
def test_messages_are_those_of_the_program(message: str) -> None:
    assert is_printed(message)


def test_other_messages_would_be_noticed() -> None:
    assert is_printed(f"--device cuda: PyTorch sees no {'GPU'} here; choose cpu")
    assert not is_printed("--device cuda: PyTorch sees no TPU here; choose cpu")

"""Tests of the names of files that a user did not name."""

from pathlib import Path

import pytest

from dreamportrait.cli.naming import LONGEST, default_name, slug


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A woman, with RED hair!", "a-woman-with-red-hair-3.glb"),
        ("Ein alter Mönch", "ein-alter-monch-3.glb"),
        ("../../etc/passwd", "etc-passwd-3.glb"),
        ("a\0b\nc", "a-b-c-3.glb"),
        ("con", "con-3.glb"),  # Windows reserves "con" and "con.glb", but not this
        ("-rf *", "rf-3.glb"),
        ("一个女人", "portrait-3.glb"),
        ("", "portrait-3.glb"),
    ],
)
def test_names_are_safe(prompt: str, name: str) -> None:
    assert default_name(prompt, 3, ".glb") == Path(name)


def test_long_prompts_are_cut_after_a_word() -> None:
    name = str(default_name("a young man with curly black hair and sunglasses " * 200, 12, ".png"))
    assert name == "a-young-man-with-curly-black-hair-and-12.png"
    assert str(default_name("x" * 10_000, 0, ".png")) == "x" * LONGEST + "-0.png"
    exact = "word " * 8  # 39 letters: fits
    assert str(default_name(exact, 0, "")) == "-".join(["word"] * 8) + "-0"


def test_slugs_of_texts_without_letters_are_empty() -> None:
    assert slug("一个女人") == "" and slug("runs/my model.v2") == "runs-my-model-v2"

"""Tests of the enhanced prompt and of files of wordings."""

import pytest

from dreamportrait.systems.freestyle.prompts import Instruction, Wording, read_styles


def test_the_enhanced_prompt():
    assert Wording().instruct(" a gold\n statue ") == Instruction(
        "turn the head into a gold statue, realistic, detail, 8k, photorealistic",
        "unclear facial features, non-face objects, ugly, bad",
    )
    assert Wording(decorative="", negative="").instruct("an elf") == Instruction("turn the head into an elf", "")
    assert Wording("{t}").instruct("give it {t_d} and {t}").positive == "give it {t_d} and {t}"


@pytest.mark.parametrize(
    ("template", "problem"),
    [("an elf", "must hold {t}"), ("{t} as {name}", "knows only the places"), ("{t", "must hold {t}")],
)
def test_wrong_templates_are_refused(template, problem):
    with pytest.raises(ValueError, match=problem):
        Wording(template)


def test_an_empty_style_is_refused():
    with pytest.raises(ValueError, match="the style is empty"):
        Wording().instruct(" \n")


def test_a_file_of_wordings(tmp_path):
    path = tmp_path / "wizard.txt"
    path.write_text("a wizard\n  an old   wizard\n")
    assert read_styles(path) == ["a wizard", "an old wizard"]
    path.write_bytes(b"a wizard\r\nan old wizard")
    assert read_styles(path) == ["a wizard", "an old wizard"]


def test_all_wrong_lines_are_named(tmp_path):
    path = tmp_path / "wizard.txt"
    path.write_text("a wizard\n\nA  Wizard\nan old wizard\n  \n")
    with pytest.raises(
        ValueError, match=r"line 2 is empty, line 3 repeats line 1: 'A Wizard', line 5 is empty; remove"
    ):
        read_styles(path)


@pytest.mark.parametrize(("content", "problem"), [(b"", "is empty"), (b"\xff\xfe", "cannot be read"), (None, "cannot")])
def test_files_without_wordings_are_refused(tmp_path, content, problem):
    path = tmp_path / "wizard.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_styles(path)

"""Tests of the triples for a picture editor: only what is said changes, and all that is said."""

from collections import Counter

import numpy as np
import pytest

from dreamportrait.miniworld import grammar, instructions
from dreamportrait.miniworld.attributes import ATTRIBUTES, is_held_out, make_attributes, settle
from dreamportrait.miniworld.edits import SEEDS, Edit, changes, draw_edit
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.grammar import Draw, split_words
from dreamportrait.miniworld.styled_captions import BLURRED, vocabulary
from dreamportrait.miniworld.styled_world import is_style_held_out
from dreamportrait.miniworld.styles import STYLES, Look, style

GOLDEN = (
    "add a wide hat",
    "turn it into a clay figure",
    "turn the head into a woodland elf",
)

WORDS = {  # other words for values; a value without an entry is written as it is
    **grammar.HAIR,
    **grammar.SKIN,
    **grammar.NOUNS,
    **grammar.AGES,
    **grammar.EYEWEAR,
    **grammar.FACIAL_HAIR,
    **grammar.HATS,
    **grammar.MOODS,
}


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    return [draw_edit("train", i) for i in range(1500)]


def test_half_of_the_triples_ask_for_a_style(edits: list[Edit]):
    kinds = Counter((edit.look.style is not None, bool(edit.changed)) for edit in edits)
    # Four standard deviations of shares among 1500: 0.05.
    for kind, share in (((True, False), 0.5), ((False, True), 0.4), ((True, True), 0.1)):
        assert abs(kinds[kind] / len(edits) - share) < 0.05
    assert not kinds[False, False]
    assert {next(iter(edit.changed)) for edit in edits if edit.changed} == set(ATTRIBUTES)
    for found in STYLES:
        assert {edit.look.variant for edit in edits if edit.look.style == found} == set(range(found.variants))


def test_instructions_say_what_changes_with_known_words(edits: list[Edit]):
    known = set(vocabulary())
    for edit in edits:
        text = edit.instruction
        assert set(split_words(text)) <= known, text
        named = {found.name for found in STYLES if any(phrase in text for phrase in found.phrases)}
        assert named == ({edit.look.style.name} if edit.look.style else set()), text
        assert bool(edit.blur) == any(text.endswith(f", {word}") for word in BLURRED), text
        for name, value in edit.changed.items():
            if value == "none":
                assert any(word in text for word in ("without", "remove", "take off", "clean-shaven")), text
            elif (name, value) not in (("earrings", "gold"), ("lipstick", "red")) and _told(edit, name):
                # "a wide red hat": the colour stands between the words of a hat
                told = [set(split_words(word)) for word in WORDS.get(value, (value,))]
                assert any(word <= set(split_words(text)) for word in told), text


def _told(edit: Edit, name: str) -> bool:
    return edit.look.style is None or name in edit.look.style.keeps


def test_all_that_is_not_said_stays(edits: list[Edit]):
    for edit in edits:
        assert settle(edit.face_after) == edit.face_after and not is_held_out(edit.face_after)
        assert not is_style_held_out(edit.look.style, edit.face_after)
        assert len(edit.changed) <= 1 or set(edit.changed) == {"hat", "hat_color"}
        assert all(edit.face[name] != value or name == "hat_color" for name, value in edit.changed.items())
        assert all(edit.face[name] == edit.face_after[name] for name in edit.kept())
        assert edit.look.style is None or set(edit.kept()) <= edit.look.style.keeps


def test_pictures_differ_and_share_their_background(edits: list[Edit]):
    for edit in edits[:40]:
        before, after = edit.before(), edit.after()
        assert before.shape == after.shape == (3, 64, 64) and before.dtype == after.dtype == np.uint8
        assert (np.abs(before.astype(int) - after).max(0) > 20).sum() >= 8
        if not edit.blur and "background" not in edit.changed:
            look = edit.look
            masks = [render(edit.face, edit.traits, edit.camera).depth, None]
            masks[1] = render(edit.face_after, edit.traits, edit.camera, look=look).depth
            empty = (masks[0] == 0) & (masks[1] == 0)
            assert empty.sum() > 500 and np.array_equal(before[:, empty], after[:, empty])


def test_a_triple_depends_on_split_and_number_alone():
    assert tuple(draw_edit("validation", i).instruction for i in range(3)) == GOLDEN
    one, again = draw_edit("train", 5), draw_edit("train", 5)
    assert one.instruction == again.instruction and np.array_equal(one.after(), again.after())
    firsts = [tuple(draw_edit(split, 0).traits) for split in SEEDS]
    assert len(set(firsts)) == len(SEEDS) == 3
    with pytest.raises(ValueError, match="split='best': must be one of train, validation, test"):
        draw_edit("best", 0)
    with pytest.raises(ValueError, match="index=-1"):
        draw_edit("train", -1)


def test_changes_of_a_face():
    face = make_attributes(gender="man", hair_style="bald", facial_hair="beard")
    found = changes(face, Look(None))
    assert {"hat": "wide", "hat_color": "red"} in found and {"hat_color": "red"} not in found
    assert {"facial_hair": "none"} in found and {"lipstick": "red"} not in found  # lipstick is for women
    assert {"hair_color": "pink"} in found and {"hair_color": "blue"} not in found  # a blue beard is held out
    robot = changes(face, Look(style("robot")))
    assert {next(iter(change)) for change in robot} == {"expression", "background"}


def test_a_colour_that_the_style_loses_is_not_asked_for(edits: list[Edit]):
    lost = [e for e in edits if e.look.style and "hat_color" in e.changed and "hat_color" not in e.look.style.keeps]
    assert lost
    for edit in lost:
        asked = edit.instruction.split(" and ")[-1].split(", with")[-1]
        assert edit.changed["hat_color"] not in split_words(asked)


def test_words_of_instructions():
    draw = Draw(np.random.Generator(np.random.PCG64(0)))
    said = {name: {instructions.changing({name: value}, draw) for _ in range(60)} for name, value in _CHANGES.items()}
    assert "take off the hat" in said["hat"] and "without a hat" in said["hat"]
    assert "make it bald" in said["hair_style"] and "give it an orange hat" in said["hat_color"]
    assert "make it clean-shaven" in said["facial_hair"] and "turn it into a lady" in said["gender"]
    assert "put it in front of a grey wall" in said["background"]
    assert "give it a wide red hat" in {
        instructions.changing({"hat": "wide", "hat_color": "red"}, draw) for _ in range(60)
    }
    with pytest.raises(ValueError, match="one attribute, or hat and hat_color"):
        instructions.changing({"age": "old", "gender": "man"}, draw)


_CHANGES = {
    "hat": "none",
    "hair_style": "bald",
    "hat_color": "orange",
    "facial_hair": "none",
    "gender": "woman",
    "background": "gray",
}

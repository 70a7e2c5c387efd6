"""Tests of captions of styled heads: true, known words, nothing hidden, the right side."""

import re

import numpy as np
import pytest

from dreamportrait.geometry.cameras import orbit
from dreamportrait.miniworld.attributes import ATTRIBUTES, TRAITS, Attributes, make_attributes, read_code, sample_codes
from dreamportrait.miniworld.captions import agrees
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.grammar import ABSENT, Draw, split_words
from dreamportrait.miniworld.styled_captions import (
    BLURRED,
    SHARP,
    SPARE,
    Seen,
    captions,
    depicted,
    evaluation_caption,
    evaluation_facts,
    somebody,
    view_words,
    vocabulary,
)
from dreamportrait.miniworld.styles import STYLES, Look, style
from dreamportrait.miniworld.world import RADIUS

GOLDEN = [
    "a headshot of a woodland elf, a serious face, three quarter view, facing left, blurry",
    "three quarter view, facing left, low quality, a headshot of a male elf with pointed ears",
    "a photo of a bald male elf wearing a green top and glasses, on a white background, three quarter view, "
    "facing left, low quality",
]


@pytest.fixture(scope="module")
def shown() -> list[Seen]:
    """Return heads of all styles from all sides."""
    kinds = [None, None, *STYLES]
    faces = enumerate(sample_codes(700, seed=5))
    return [Seen(read_code(z)[0], kinds[i % 14], (37 * i) % 361 - 180.0, i % 10 == 0) for i, z in faces]


@pytest.fixture(scope="module")
def texts(shown: list[Seen]) -> list[list[str]]:
    return [[*captions(seen, i, 4, deny=0.5), evaluation_caption(seen, i)] for i, seen in enumerate(shown)]


def draw(seed: int = 0) -> Draw:
    return Draw(np.random.Generator(np.random.PCG64(seed)))


def test_captions_of_one_head():
    """A change of the words changes every data set and every score, so it must be noticed."""
    face = make_attributes(gender="man", hair_style="bald", facial_hair="beard", eyewear="glasses", hat="cap")
    seen = Seen(face, style("elf"), 45.0, blurred=True)
    assert [*captions(seen, 3, 2), evaluation_caption(seen, 3)] == GOLDEN
    assert captions(seen, 3, 5)[:2] == captions(seen, 3, 2) != captions(seen, 4, 2)
    assert len(set(captions(seen, 3, 50))) == 50 and captions(seen, 3, 0) == []


def test_every_word_is_in_the_vocabulary_and_every_word_of_it_is_used(texts: list[list[str]]):
    used = {word for row in texts for text in row for word in split_words(text)}
    assert used <= set(vocabulary())
    # The rest is in captions of plain faces, in instructions, or spare.
    assert {"statue", "behind", "blurred", "left", "female", "it", "of"} <= used and not used & set(SPARE)
    assert max(len(split_words(text)) for row in texts for text in row) <= 45  # 77 tokens fit into a text tower


def test_style_and_blur_are_always_told_and_never_wrongly(shown: list[Seen], texts: list[list[str]]):
    for seen, row in zip(shown, texts, strict=True):
        for text in row:
            named = {
                found.name for found in STYLES if any(phrase.split(" with ")[0] in text for phrase in found.phrases)
            }
            assert named == ({seen.style.name} if seen.style else set()), text
            assert seen.blurred == any(re.search(rf"\b{word}\b", text) for word in BLURRED), text
            assert not (seen.blurred and any(re.search(rf"\b{word}\b", text) for word in SHARP))


def test_a_view_is_never_wrong(shown: list[Seen], texts: list[list[str]]):
    for seen, row in zip(shown, texts, strict=True):
        turn = abs(seen.yaw)
        for text in row:
            assert "behind" not in text or turn > 110
            assert "from the front" not in text or turn <= 30
            assert "profile" not in text or 70 < turn <= 110
            assert "the face of" not in text or turn <= 110
            sides = re.findall(r"(?:facing|turned to the) (left|right)", text)
            assert all(side == ("left" if seen.yaw > 0 else "right") for side in sides)


def test_the_side_is_that_of_the_picture():
    """A camera to the right of the front must see a nose left of the middle of the head."""
    camera = orbit([60.0], 0.0, RADIUS, (0, 0, 0)).numpy()[0]
    plain, puppet = make_attributes(hair_style="short"), style("wooden puppet")
    long = render(plain, np.zeros(len(TRAITS)), camera, look=Look(puppet)).mask[20:40]  # its nose sticks out
    short = render(plain, np.zeros(len(TRAITS)), camera).mask[20:40]
    nose = np.argwhere(long & ~short)[:, 1].mean()
    assert nose < 32 and "left" in view_words(60.0, draw()) and "right" in view_words(-60.0, draw())


def test_what_is_stated_can_be_seen(shown: list[Seen]):
    for i, seen in enumerate(shown):
        facts = evaluation_facts(seen, i)
        assert set(facts) <= set(seen.sayable()) and agrees(seen.face, facts)
        assert seen.style is None or set(facts) <= seen.style.keeps
        assert all(seen.face[name] == "none" and name in ABSENT for name in seen.deniable())
    behind = Seen(make_attributes(gender="man", facial_hair="beard", eyewear="glasses"), None, 170.0)
    assert behind.sayable() == ["hair_style", "hair_color", "clothes", "background"]
    bald = make_attributes(gender="man", hair_style="bald", facial_hair="beard")
    assert "hair_color" in Seen(bald, None, 0.0).sayable() and "hair_color" not in Seen(bald, None, 120.0).sayable()


@pytest.mark.parametrize("name", [name for name in ATTRIBUTES if name != "background"])
def test_attributes_can_be_told_apart_up_to_the_angle_at_which_they_are_said(name: str):
    needed: Attributes = {"facial_hair": {"gender": "man"}, "hat_color": {"hat": "cap"}}.get(name, {})
    values = ["short", "long", "curly"] if name == "hair_style" else ATTRIBUTES[name]
    faces = [make_attributes(**({"hair_style": "short"} | needed | {name: value})) for value in values]
    most = max(yaw for yaw in range(0, 181, 10) if name in Seen(faces[-1], None, yaw).sayable())
    for yaw in (most, -most):
        camera = orbit([float(yaw)], 0.0, RADIUS, (0, 0, 0)).numpy()[0]
        shown = [render(face, np.zeros(len(TRAITS)), camera).image.astype(int) for face in faces]
        # At least three of the 4096 pixels: an iris that is seen from 50 degrees aside.
        assert all((np.abs(shown[0] - other).max(-1) > 30).sum() >= 3 for other in shown[1:]), yaw


def test_words_for_heads():
    assert depicted("gold statue", ["old"], "man") == "gold statue of an old man"
    assert depicted("gold statue", [], "person") == "gold statue"
    assert depicted("gold statue", [], "person without a hat") == "gold statue without a hat"
    assert depicted("cartoon", [], "redhead") == "cartoon of a redhead"
    assert somebody("elf", ["old"], "man") == "old male elf"
    assert somebody("elf with pointed ears", [], "girl without glasses") == (
        "young female elf with pointed ears without glasses"
    )
    assert somebody("robot", ["smiling"], "person") == "smiling robot"


def test_hidden_variants_are_never_mentioned():
    """The captions of a head do not depend on its variant: Seen does not even know it."""
    assert not {"variant", "look"} & set(Seen.__dataclass_fields__)
    for word in ("wig", "scarf", "white-haired"):
        assert word not in vocabulary()
    with pytest.raises(ValueError, match="seed=-1"):
        captions(Seen(make_attributes(), None, 0.0), -1)

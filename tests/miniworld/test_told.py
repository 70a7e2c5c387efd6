"""Tests of captions that deny, and of captions that are false in one attribute."""

import numpy as np
import pytest

from dreamportrait.miniworld.attributes import make_attributes, read_code, sample_codes, settle
from dreamportrait.miniworld.captions import Told, captions, contradicted, sayable, told
from dreamportrait.miniworld.grammar import ABSENT, split_words, vocabulary


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def said() -> list[Told]:
    draw = rng()
    return [told(read_code(z)[0], draw, deny=0.5) for z in sample_codes(600, 3)]


def test_what_is_denied_is_absent_and_said_with_known_words(said: list[Told]) -> None:
    known = set(vocabulary())
    denying = [caption for caption in said if caption.absent]
    assert 0.3 < len(denying) / len(said) < 0.5  # some faces lack nothing that can be denied
    for caption in said:
        assert all(caption.face[name] == "none" and name in ABSENT for name in caption.absent)
        assert caption.stated <= set(sayable(caption.face))
        assert set(split_words(caption.text())) <= known
    words = ("without", "no", "clean")
    assert all(any(word in split_words(caption.text()) for word in words) for caption in denying)


def test_nobody_is_said_to_lack_what_they_never_have() -> None:
    woman = make_attributes(gender="woman")
    man = make_attributes(gender="man")
    draw = rng()
    assert {name for _ in range(100) for name in told(woman, draw, 1).absent} == set(ABSENT) - {"facial_hair"}
    assert {name for _ in range(100) for name in told(man, draw, 1).absent} == {"eyewear", "hat", "facial_hair"}


def test_a_contradiction_differs_in_one_attribute_that_was_mentioned(said: list[Told]) -> None:
    draw = rng(1)
    changed = 0
    for caption in said:
        false = contradicted(caption, draw)
        if false == caption:
            continue
        changed += 1
        mentioned = caption.stated | set(caption.absent)
        different = [name for name in mentioned if false.face[name] != caption.face[name]]
        assert len(different) == 1
        assert settle(false.face) == false.face  # such a face can exist
        assert set(false.absent) <= {name for name in ABSENT if false.face[name] == "none"}
        assert false.stated <= set(sayable(false.face))
    assert changed > 0.95 * len(said)


def test_stating_and_denying_the_same_thing_are_each_others_contradictions() -> None:
    face = make_attributes(gender="woman", eyewear="none")
    caption = Told(face, frozenset({"gender"}), ("eyewear",), 5)
    draw = rng()
    found = [contradicted(caption, draw) for _ in range(50)]
    assert any("eyewear" in false.stated and not false.absent for false in found)
    back = [contradicted(false, draw) for false in found if "eyewear" in false.stated for _ in range(20)]
    assert any(again.absent == ("eyewear",) for again in back)


def test_captions_deny_only_if_asked() -> None:
    face = make_attributes(gender="woman")
    plain, denying = captions(face, 1, 40), captions(face, 1, 40, deny=1.0)
    assert not any({"without", "no"} & set(split_words(text)) for text in plain)
    assert all({"without", "no"} & set(split_words(text)) for text in denying)

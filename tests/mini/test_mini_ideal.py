"""Tests of the scores of rendered faces that show exactly what captions state and change nothing else."""

import pytest
import torch

from dreamportrait.mini import stated_faces
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.miniworld.attributes import make_attributes, read_code, sample_codes
from dreamportrait.miniworld.captions import agrees, evaluation_facts, first_facts
from dreamportrait.miniworld.faces import render


def test_the_faces_are_as_said_and_as_they_were():
    seeds = stated_faces._faces()
    for i, z in enumerate(sample_codes(100, seed=5)):
        face = read_code(z)[0]
        for said in (first_facts(face, i), evaluation_facts(face, i)):
            changed, _ = stated_faces._changed(seeds, said)
            assert agrees(changed, said)
    own = make_attributes(gender="woman", hair_style="curly", hair_color="pink")
    changed, traits = stated_faces._changed(iter([(own, "traits")]), {"hair_color": "blue"})
    assert changed == own | {"hair_color": "blue"} and traits == "traits"


def test_who_cannot_be_as_is_said_is_passed_over():
    woman, man = make_attributes(gender="woman"), make_attributes(gender="man")
    assert stated_faces._changed(iter([(woman, 1), (man, 2)]), {"facial_hair": "beard"})[1] == 2


def test_pictures_are_those_of_the_renderer():
    images = stated_faces.obeying(lambda i: {"clothes": "red"}, front(2))
    face, traits = read_code(sample_codes(1, stated_faces.SEED)[0])
    assert images.shape == (2, 3, 64, 64) and images.min() >= -1 and images.max() <= 1
    first = render(face | {"clothes": "red"}, traits, front(1)[0].numpy(), 64).image
    assert torch.equal(((images[0] + 1) * 127.5).round().byte().permute(1, 2, 0), torch.from_numpy(first))


@pytest.mark.lengthy
def test_the_table(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path))
    monkeypatch.setitem(stated_faces.FACES, "validation", 30)  # renders fewer faces
    monkeypatch.setattr(stated_faces, "PROMPTS", 5)
    rows = {name: values for name, *values in stated_faces.scores(30, "validation", (0.0, 1.0))}
    (share, _), (front_view, _), (usual, _), (retrieval, _), same, varied = (
        [float(text.split()[0]) for text in values] for values in rows.values()
    )
    assert 50 < share <= 100 and 40 < front_view < 80  # chance is 3 % with 30 captions
    assert 0 < usual < 0.3 and 0 < retrieval < 0.3
    assert 90 < same[0] < 100  # only values that exclude what is said are lost
    assert same[1] < same[0] and varied[1] < varied[0]


def test_what_is_worn_unsaid_is_taken_off():
    face = make_attributes(gender="man", hat="beanie", eyewear="glasses", facial_hair="beard")
    taken = stated_faces._taken_off(1.0)
    changed, _ = stated_faces._changed(iter([(face, 1)]), said := {"hat": "beanie"}, taken(said))
    assert [changed[name] for name in stated_faces.WORN] == ["beanie", "none", "none"]
    assert stated_faces._taken_off(0.0)({}) == {}
    half = stated_faces._taken_off(0.5)
    assert 120 < sum("hat" in half({}) for _ in range(300)) < 180


def test_what_a_literal_change_keeps_by_hand(monkeypatch):
    """A man with a beard who becomes a woman loses the beard, and nothing else that both faces show."""
    man = make_attributes(gender="man", facial_hair="beard", hair_style="short", hat="none", eyewear="none")
    monkeypatch.setattr(stated_faces, "_faces", lambda: iter([(man, "traits")] * 2))
    found = stated_faces.kept(lambda i: {"gender": "woman"}, 2)
    assert found is not None and found.by_attribute["facial_hair"] == 0
    # Of 15 attributes, the gender is said, and no hat has no colour.
    assert found.count == 2 * 13 and found.share == pytest.approx(12 / 13)

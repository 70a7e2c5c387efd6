"""Tests of the oracle that checks whether pictures show what captions state, mostly with given attributes."""

import math

import pytest
import torch

from dreamportrait.data.dataset import WorldPictures
from dreamportrait.metrics.oracle import OracleScore
from dreamportrait.metrics.world_oracle import WorldOracle, make_oracle, unchanged
from dreamportrait.miniworld import captions, world
from dreamportrait.miniworld.attributes import ATTRIBUTES, make_attributes, read_code


class Told:
    def __init__(self, faces):
        self.faces = faces

    def read(self, images):
        return self.faces[: len(images)]


def test_by_hand():
    face = make_attributes(gender="man", hat="cap", hat_color="red", hair_style="bald", facial_hair="none")
    facts = [
        {"gender": "man", "hat": "cap", "hat_color": "blue"},  # the colour is wrong
        {"gender": "woman", "eyewear": "glasses"},  # both are wrong
        {"hair_color": face["hair_color"]},  # correct, but a bald man shows no hair
    ]
    oracle = WorldOracle(Told([face] * 3), facts.__getitem__)
    shown = oracle.judge(torch.zeros(3, 3, 8, 8), [0, 1, 2])
    found = [
        {name: value for name, value in zip(oracle.names, row, strict=True) if not math.isnan(value)}
        for row in shown.tolist()
    ]
    assert found == [{"gender": 1, "hat": 1, "hat_color": 0}, {"gender": 0, "eyewear": 0}, {"hair_color": 0}]


def test_what_is_kept_by_hand():
    """Compare an unsaid hat that is lost, an unsaid expression that stays, and eyes that sunglasses hide."""
    before = make_attributes(hat="cap", expression="smile", eyewear="sunglasses", eye_color="blue", clothes="red")
    face = make_attributes(expression="smile", eyewear="none", eye_color="green", clothes="blue")
    values = dict(zip(ATTRIBUTES, unchanged(face, before, {"clothes": "blue", "eyewear": "none"}), strict=True))
    assert values["hat"] == 0 and values["expression"] == values["gender"] == 1
    assert all(math.isnan(values[name]) for name in ("clothes", "eyewear", "eye_color", "hat_color"))
    # The stub reads the first faces of its list, whichever pictures it gets: both are equal then.
    kept = WorldOracle(Told([face]), lambda i: {"clothes": "blue"}).kept(*torch.zeros(2, 1, 3, 8, 8), [0])
    assert kept.nansum() == (~kept.isnan()).sum() == len(ATTRIBUTES) - 2  # without clothes and the colour of no hat


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return WorldPictures("test", 12, str(tmp_path_factory.mktemp("cache")))


def test_real_faces_show_what_their_captions_say(pictures):
    """Exact attributes must confirm all that captions state; the trained oracle, which sees pictures, nearly all."""
    faces = [read_code(code)[0] for code in world.identities("test", 12)]
    assert pictures.evaluation_facts(3) == captions.evaluation_facts(faces[3], world.caption_seed("test", 3))
    images = torch.stack([pictures.image(i) for i in range(12)]).float() / 127.5 - 1
    exact = WorldOracle(Told(faces), pictures.evaluation_facts)
    trained = make_oracle(pictures, "cpu")
    by_exact, by_trained = (
        OracleScore.of(each.judge(images, list(range(12))), each.names) for each in (exact, trained)
    )
    assert by_exact.share == by_exact.complete == 1
    assert by_trained.share > 0.9 and set(by_trained.by_attribute) <= set(ATTRIBUTES)
    others = trained.judge(images.roll(1, 0), list(range(12)))
    assert OracleScore.of(others, trained.names).share < 0.6

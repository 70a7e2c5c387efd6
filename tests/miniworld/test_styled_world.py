"""Tests of sets of styled heads: what they hold, that it can be rendered again, held-out pairs."""

from pathlib import Path

import numpy as np
import pytest

from dreamportrait.geometry.cameras import orbit
from dreamportrait.miniworld import styled_world as styled
from dreamportrait.miniworld import world
from dreamportrait.miniworld.attributes import ATTRIBUTES, is_held_out, make_attributes, read_code
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.styles import STYLES, Look, style


@pytest.fixture(scope="module")
def plan() -> styled.Plan:
    return styled.plan("train", 2000)


def test_half_styled_half_white_a_tenth_blurred(plan: styled.Plan):
    number, variant, white = plan.looks.T
    # Four standard deviations of the shares among 2000: 0.045 for a half, 0.027 for a tenth.
    assert abs((number >= 0).mean() - 0.5) < 0.045 and abs(white.mean() - 0.5) < 0.045
    assert abs((plan.blurs > 0).mean() - 0.1) < 0.027 and plan.blurs.max() <= 2.2
    assert set(number) == {-1, *range(len(STYLES))}
    for i, found in enumerate(STYLES):
        assert set(variant[number == i]) == set(range(found.variants))
    turn = np.abs(plan.yaws)
    assert turn.max() > 170 and abs((turn < 60).mean() - 2 / 3) < 0.043  # a half, and a third of the other half


def test_held_out_pairs_are_only_in_combinations():
    found = {split: styled.plan(split, 400) for split in styled.SEEDS}
    for split, made in found.items():
        for z, row in zip(made.codes, made.looks, strict=True):
            face = read_code(z)[0]
            assert styled.is_style_held_out(Look.from_row(row).style, face) == (split == "combinations")
            assert not is_held_out(face)
    codes = [made.codes[:, 0] for made in found.values()]
    assert len(np.unique(np.concatenate(codes))) == 4 * 400
    shown = {Look.from_row(row).style.name for row in found["combinations"].looks}
    assert shown == {name for name, _, _ in styled.HELD_OUT}


def test_held_out_pairs_can_be_seen():
    for name, attribute, value in styled.HELD_OUT:
        assert value in ATTRIBUTES[attribute] and attribute in style(name).keeps
    assert not styled.is_style_held_out(None, make_attributes(eyewear="glasses"))
    bald = make_attributes(gender="man", hair_style="bald", hair_color="pink")
    assert not styled.is_style_held_out(style("cartoon"), bald)
    assert styled.is_style_held_out(style("cartoon"), make_attributes(hair_color="pink"))


def test_a_picture_depends_on_its_number_alone(plan: styled.Plan):
    for whole, part in zip(plan, styled.plan("train", 7), strict=True):
        assert np.array_equal(whole[:7], part)
    with pytest.raises(ValueError, match="split='best': must be one of train, validation, test, combinations"):
        styled.load("best", 3)
    with pytest.raises(ValueError, match="count=0"):
        styled.load("test", 0)


def test_cameras_are_those_of_orbit():
    angles = np.array([[0.0, 0.0], [30.0, 10.0], [180.0, -20.0]])
    for label, (yaw, pitch) in zip(styled.cameras(angles), angles, strict=True):
        expected = orbit([float(yaw)], float(pitch), world.RADIUS, (0, 0, 0))[0]
        assert np.allclose(label, expected, atol=1e-6)  # single precision of positions of about 2.7


def test_loaded_heads_are_rendered_once_and_are_what_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded, plan = styled.load("validation", 24, tmp_path, workers=1), styled.plan("validation", 24)
    for i in range(24):
        look, z = Look.from_row(plan.looks[i]), plan.codes[i]
        picture = render(*read_code(z), plan.cameras[i], look=look)
        image = picture.image.transpose(2, 0, 1)
        image = styled.blurred(image, float(plan.blurs[i])) if plan.blurs[i] else image
        assert np.array_equal(loaded.images[i], image) and loaded.look(i) == look
        assert np.array_equal(loaded.depth[i], picture.depth.astype(np.float16))
        seen = loaded.seen(i)
        assert seen.style == look.style and seen.blurred == bool(plan.blurs[i])
        assert not look.white or (seen.face["background"] == "white")
        assert len(set(loaded.captions(i))) == 10
        assert loaded.evaluation_caption(i) and set(loaded.evaluation_facts(i)) <= set(seen.sayable())
    monkeypatch.setattr(world, "write_set", None)  # a second rendering would fail
    assert len(styled.load("validation", 5, tmp_path)) == 5
    assert {path.name for path in tmp_path.iterdir()} == {f"validation-24-{styled.fingerprint()}"}


def test_a_blurred_picture_keeps_its_mean_and_loses_its_edges():
    image = render(make_attributes(), np.zeros(16), world.random_cameras(1, 3)[0]).image.transpose(2, 0, 1)
    soft = styled.blurred(image, 1.5)
    assert soft.shape == image.shape and soft.dtype == np.uint8 and abs(float(soft.mean()) - image.mean()) < 1
    steps = [np.abs(np.diff(x.astype(float), axis=2)).max() for x in (image, soft)]
    assert steps[1] < 0.6 * steps[0]

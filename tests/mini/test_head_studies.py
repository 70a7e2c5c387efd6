"""Tests of the studies of heads: what they count, orderings, and that an interrupted one continues."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scripts import load_script

from dreamportrait.core.errors import DataError
from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.views import Views
from dreamportrait.mini.head import fitted, prompted, shapes
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.render import render


def mean_head() -> Head:
    model = from_pretrained("mini/head")
    return Head(model, torch.zeros(model.num_shapes), model.mean_texture)


@pytest.mark.slow
def test_a_study_continues_and_judges(tmp_path: Path) -> None:
    study = prompted.Study(tmp_path, ("mean", "ideal"), captions=2)
    said: list[str] = []
    prompted.run(study, said.append)
    assert said == [f"{row}, caption {i} of 2" for i in (1, 2) for row in ("mean", "ideal")]
    prompted.run(study, said.append)
    assert len(said) == 4  # nothing is made twice
    found = prompted.scores(study)
    assert found["mean"].length == 0 < found["ideal"].length
    assert found["mean"].noise < found["ideal"].noise  # exact textures have hair and lips
    assert found["ideal"].said > found["mean"].said
    with pytest.raises(DataError, match="holds results of"):
        prompted.run(replace(study, effort=0.5), said.append)
    # The same picture for two captions cannot be nearest to both, nor first among all for the wrong one.
    assert found["mean"].r_precision.value <= 0.5


def test_a_picture_of_its_caption_counts_as_a_hit(tmp_path: Path) -> None:
    """Exact pictures of the world are recognised; the same pictures at other captions are not."""
    from dreamportrait.miniworld.world import load

    world = load("validation", 1000)
    for row, shift in (("mean", 0), ("random", 1)):
        (tmp_path / row).mkdir()
        for i in range(4):
            place = tmp_path / row / f"{i:03d}.png"
            Image.fromarray(world.images[(i + shift) % 4].transpose(1, 2, 0)).save(place)
            place.with_suffix(".json").write_text(json.dumps({"length": 0.0, "saturation": 0.0, "noise": 0.0}))
    found = prompted.scores(prompted.Study(tmp_path, ("mean", "random"), captions=4))
    assert found["mean"].r_precision.value >= 0.75
    assert found["random"].r_precision.value == 0


def test_orderings() -> None:
    def scored(length: float, saturation: float, noise: float) -> prompted.RowScores:
        return prompted.RowScores(prompted.Measured(0.5, 0.4, 0.6), 0.5, {}, length, saturation, noise)

    found = {"contrast": scored(0.2, 0.3, 0.1), "no-l2": scored(0.9, 0.3, 0.1), "whole": scored(0.2, 0.3, 0.05)}
    words = {(score, higher): v.word for score, _, higher, v in prompted.verdicts(found)}
    assert words["length", "no-l2"] == "same direction, one seed"
    assert words["noise", "whole"] == "reversed, one seed"
    assert words["saturation", "strong"] == "not run"


def test_numbers_of_a_texture_by_hand() -> None:
    texture = torch.zeros(3, 2, 2)
    texture[0] = torch.tensor([[0.0, 0.6], [0.0, 0.6]])
    head = replace(mean_head(), texture=texture, beta=torch.tensor([1.0, -3.0]))
    found = prompted.numbers_of(head, torch.ones(2, 2, dtype=torch.bool))
    assert found["length"] == 2
    assert found["saturation"] == pytest.approx(0.3)  # half of the texels have red of 0.6
    assert found["noise"] == pytest.approx(0.2)  # across: 0.6 in one of three colours; down: none


def test_shapes_are_judged_by_named_traits() -> None:
    model = from_pretrained("mini/head")
    assert model.trait_dirs is not None
    gender = model.trait_dirs[model.shape_names.index("gender")]
    man = shapes.judged(model, gender, "man", "sds", "a man")
    assert man.signs == dict.fromkeys(shapes.TOLD, True)
    assert man.distance == pytest.approx(0, abs=1e-5)
    assert not any(shapes.judged(model, gender, "woman", "sds", "a woman").signs.values())
    assert shapes.judged(model, 0 * gender, "man", "sds", "a man").distance == 1
    wide = shapes.judged(model, model.trait_dirs[model.shape_names.index("head_width")], "man", "sds", "a man")
    assert wide.untold["head_width"] == pytest.approx(1, abs=1e-3)
    assert abs(wide.untold["nose"]) < 1e-3
    both = shapes.summary([man, wide])
    assert both["runs"] == 2
    assert both["largest mean of an untold trait"] == pytest.approx(0.5, abs=1e-3)


def test_unknown_modes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown modes csd; known are contrast, sds"):
        shapes.run(tmp_path / "a", 1, ("csd", "sds"))
    assert not (tmp_path / "a").exists()


def test_a_head_that_is_its_portrait_keeps_everything() -> None:
    head = mean_head()
    cameras = orbit(fitted.YAWS, 0.0, RADIUS, (0.0, 0.0, 0.0))
    with torch.no_grad():
        drawn = render(head.vertices[None], head.model, head.texture, cameras, 128, torch.ones(3))
    seen = Views(cameras, drawn.image, drawn.depth, drawn.mask)
    found = fitted.compared(head, seen, from_pretrained("mini/oracle"), "a person")
    assert found.depth < 1e-6
    assert all(found.kept.values())
    assert not set(found.kept) & set(fitted.STICKS_OUT)
    seen.depth.add_(0.01)
    assert fitted.compared(head, seen, from_pretrained("mini/oracle"), "").depth == pytest.approx(
        0.01 / head.model.height, rel=1e-3
    )


@pytest.mark.lengthy
def test_the_script(tmp_path: Path) -> None:
    main = load_script("eval/heads.py").main
    done = CliRunner().invoke(main, ["--rows", "mean,random", "--captions", "1", "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert "r_precision: random <= clip" in (tmp_path / "a" / "heads.md").read_text()
    assert set(json.loads((tmp_path / "a" / "results.json").read_text())["results"]) == {"mean", "random"}
    done = CliRunner().invoke(main, ["--rows", "best", "--out", str(tmp_path / "b")])
    assert done.exit_code == 1
    assert "unknown rows best" in done.output
    assert not (tmp_path / "b").exists()
    assert np.asarray(Image.open(tmp_path / "a" / "mean" / "000.png")).shape == (64, 64, 3)

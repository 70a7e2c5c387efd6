"""Tests of publishing a finished run: the shipped folder is small, sealed, and has a card with the scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from tiny_pipeline import write_portrait

from dreamportrait.core.errors import WeightsError
from dreamportrait.mini.publish import publish, read_measured
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.seals import verify

SCORES: dict[str, Any] = {
    "prompt_diversity": {"features": 0.15, "colors": 0.2},
    "identity_diversity": {"features": 0.6, "colors": 0.3},
    "oracle": {"share": 0.75, "complete": 0.25, "by_attribute": {"hat": 0.5, "gender": 0.9, "earrings": 0.125}},
}
CEILING = {"features": 0.3, "colors": 0.4, "across": 0.7, "said": 0.99, "complete": 0.9}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = load_config(ROOT / "configs" / "dreamportrait" / "mini_long.yaml", ["run.folder=/somewhere/else"])
    (folder / "config.yaml").write_text(config.to_yaml())
    write_portrait(folder / "portrait")
    digest = weights_hash(load_portrait(folder / "portrait").generator)
    for name in ("test", "combinations"):
        write_scores(tmp_path / name, f"miniworld:{name}", digest)
    write_ceilings(tmp_path / "ceilings.json")
    return folder


def write_scores(folder: Path, source: str, digest: str) -> None:
    folder.mkdir(exist_ok=True)
    found = {
        "scores": SCORES,
        "protocol": {"prompts_for_diversity": 50, "per_prompt": 4},
        "checkpoint": {"sha256": digest},
        "dataset": {"source": source},
        "code": {"version": "0.1.0"},
    }
    (folder / "scores.json").write_text(json.dumps(found))
    table = f"| score | value |\n| --- | --- |\n| MSC of {source} | 12.00 |"
    (folder / "scores.md").write_text(f"# run on {source}\n\n{table}\n\n## What was measured\n\n| secret |\n")


def write_ceilings(path: Path, **changes: Any) -> None:
    about = {"dataset": "miniworld:test", "prompts": 50, "per_prompt": 4} | changes
    path.write_text(json.dumps(about | {"ceilings": {"rendered as stated": CEILING}}))


def measured(folder: Path):
    return read_measured(folder / "test", folder / "combinations", folder / "ceilings.json")


@pytest.mark.lengthy
def test_what_is_shipped_is_whole_and_works(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, out, measured(tmp_path))
    verify(out)
    card = (out / "README.md").read_text()
    assert "| MSC of miniworld:test | 12.00 |" in card and "| MSC of miniworld:combinations | 12.00 |" in card
    assert "secret" not in card and "version 0.1.0" in card and "`provenance=False`" in card
    assert "| hat | 50.0 % | 50.0 % |" in card and "| earrings | 12.5 % | 12.5 % |" in card
    assert "| expression | - | - |" in card and "gender" not in card  # not named by these captions; not shown
    assert "| mini | 0.150 | 0.200 | 0.600 | 75.0 % | 25.0 % |" in card
    assert "| rendered as stated | 0.300 | 0.400 | 0.700 | 99.0 % | 90.0 % |" in card
    recipe = load_config(out / "training.yaml")
    assert recipe.run.name == "mini_long" and str(recipe.run.folder) == "runs"
    assert not (out / "discriminator.safetensors").exists() and (out / "sheet.png").stat().st_size > 0
    size = [(folder / "generator.safetensors").stat().st_size for folder in (out, run / "portrait")]
    assert size[0] < 0.7 * size[1]  # matrices in half precision, biases unchanged
    assert DreamPortraitPipeline.from_pretrained(out)("a man").images.shape == (1, 16, 16, 3)
    with pytest.raises(WeightsError, match="exists; name another folder"):
        publish(run, out, measured(tmp_path))


@pytest.mark.lengthy
def test_scores_that_do_not_belong_to_it(run: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "combinations", "miniworld:combinations", "other")
    with pytest.raises(WeightsError, match="were measured of different generators"):
        measured(tmp_path)
    write_scores(tmp_path / "test", "miniworld:test", "other")
    with pytest.raises(WeightsError, match="the scores are not those of"):
        publish(run, tmp_path / "out", measured(tmp_path))
    write_scores(tmp_path / "test", "miniworld:validation", "other")
    with pytest.raises(WeightsError, match="was measured on miniworld:validation, not on miniworld:test"):
        measured(tmp_path)
    assert not (tmp_path / "out").exists()


def test_ceilings_of_other_prompts(tmp_path: Path) -> None:
    for name in ("test", "combinations"):
        write_scores(tmp_path / name, f"miniworld:{name}", "one")
    write_ceilings(tmp_path / "ceilings.json", dataset="miniworld:validation", prompts=20)
    with pytest.raises(
        WeightsError, match="dataset is miniworld:validation, not miniworld:test; prompts is 20, not 50"
    ):
        measured(tmp_path)


@pytest.mark.lengthy
def test_nothing_is_left_of_what_failed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr("dreamportrait.mini.publish.card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(run, tmp_path / "out", found)
    assert {path.name for path in tmp_path.iterdir()} == before

"""Tests of publishing a finished run: the shipped folder is small, sealed, and has a card with the scores."""

from pathlib import Path

import pytest
from places import ROOT
from tiny_pipeline import write_portrait

from dreamportrait.core.errors import WeightsError
from dreamportrait.mini.publish import publish
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights.seals import verify

TABLE = "| score | value |\n| --- | --- |\n| MSC | 12.00 |"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = load_config(ROOT / "configs" / "dreamportrait" / "mini_long.yaml", ["run.folder=/somewhere/else"])
    (folder / "config.yaml").write_text(config.to_yaml())
    write_portrait(folder / "portrait")
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "scores.json").write_text('{"code": {"version": "0.1.0"}}')
    (scores / "scores.md").write_text(f"# run on miniworld:test\n\n{TABLE}\n\n## What was measured\n\n| secret |\n")
    return folder


@pytest.mark.lengthy
def test_what_is_shipped_is_whole_and_works(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, tmp_path / "scores", out)
    verify(out)
    card = (out / "README.md").read_text()
    assert TABLE in card and "secret" not in card and "version 0.1.0" in card
    recipe = load_config(out / "training.yaml")
    assert recipe.run.name == "mini_long" and str(recipe.run.folder) == "runs"
    assert not (out / "discriminator.safetensors").exists() and (out / "sheet.png").stat().st_size > 0
    size = [(folder / "generator.safetensors").stat().st_size for folder in (out, run / "portrait")]
    assert size[0] < 0.7 * size[1]  # matrices in half precision, biases unchanged
    assert DreamPortraitPipeline.from_pretrained(out)("a man").images.shape == (1, 16, 16, 3)
    with pytest.raises(WeightsError, match="exists; name another folder"):
        publish(run, tmp_path / "scores", out)


@pytest.mark.lengthy
def test_nothing_is_left_of_what_failed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "scores" / "scores.md").unlink()
    with pytest.raises(FileNotFoundError):
        publish(run, tmp_path / "scores", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "scores"}

"""Tests of `dreamportrait splats`, on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_pipeline import write_portrait

from dreamportrait.cli.splats import splats as command
from dreamportrait.export.provenance import verify
from dreamportrait.export.splats import Splats, make_splats
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


def run(*words: object) -> Result:
    return CliRunner().invoke(command, ["a man", "--device", "cpu", "--count", "2000", *map(str, words)])


def test_a_ply_holds_the_splats_of_the_prompt_and_seed(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "man.ply"
    done = run("--model", model, "--seed", 3, "--truncation", 0.5, "--strength", 0.8, "--out", out)
    assert done.exit_code == 0, done.output
    portrait = DreamPortraitPipeline.from_pretrained(model)("a man", 3, truncation=0.5, strength=0.8)
    expected = make_splats(portrait.head, 2000)
    assert done.output == f"wrote {out}: {len(expected)} splats, {out.stat().st_size / 1e6:.1f} MB, seed 3\n"
    assert np.array_equal(Splats.load(out).positions, expected.positions)
    assert verify(out) == portrait.claim


def test_facts_as_json(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--model", model, "--json", "--no-provenance")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert [path.name for path in tmp_path.iterdir()] == ["a-man-0.ply"] == [facts["out"]]
    assert facts["bytes"] == Path(facts["out"]).stat().st_size and facts["provenance"] is None
    assert facts["splats"] == len(Splats.load(facts["out"])) and facts["background"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "man.glb"), "man.glb: must end in one of .ply, .spz"),
        (("--out", "there.ply"), "there.ply exists; name another file"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.ply").touch()
    done = run(*words)
    assert done.exit_code == 1 and message in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["there.ply"]

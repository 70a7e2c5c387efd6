"""Tests of `dreamportrait head`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from dreamportrait.cli import main
from dreamportrait.systems.heads import optimise
from dreamportrait.systems.heads.optimise import Settings


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["head", *words])
    return done.exit_code, done.output


def test_a_head_from_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of each stage with the shipped models: the whole way from a sentence to a file."""
    monkeypatch.setattr(optimise, "SHAPE", Settings(steps=1, views=2))
    monkeypatch.setattr(optimise, "TEXTURE", Settings(steps=1, views=2, mode="sds"))
    out, evolution, views = (tmp_path / name for name in ("man.glb", "evolution.png", "views.png"))
    code, said = run(
        *("optimise", "a man with red hair", "--out", str(out), "--evolution", str(evolution)),
        *("--views", str(views), "--json"),
    )
    assert code == 0, said
    facts = json.loads(said.splitlines()[-1])
    assert facts["bytes"] == out.stat().st_size > 100_000
    assert facts["prompt"] == "a man with red hair"
    assert any(facts["weights"])
    assert size_of(evolution) == (512, 256)  # one picture of each stage
    assert size_of(views) == (768, 256)
    code, said = run("optimise", "a man", "--out", str(out))
    assert code == 1
    assert "exists" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimise", " ", "--out", "x.glb"], "the prompt is empty"),
        (["optimise", "a man", "--out", "x.obj"], "must end in .glb"),
        (["optimise", "a man", "--out", "x.glb", "--head", "nowhere"], "nowhere"),
        (["optimise", "a man", "--out", "x.glb", "--prior", "nowhere"], "no diffusion model 'nowhere'"),
        (["optimise", "a man", "--out", "x.glb", "--evolution", "x.doc"], "must end in one of"),
        (["components", "--head", "nowhere", "--out", "x.png"], "nowhere"),
    ],
)
def test_wrong_input_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(*words)
    assert code == 1
    assert message in said
    assert not list(tmp_path.iterdir())


def test_components(tmp_path: Path) -> None:
    code, said = run("components", "--out", str(tmp_path / "components.png"))
    assert code == 0, said
    assert size_of(tmp_path / "components.png") == (8 * 128, 3 * 128)

"""Tests of `dreamportrait mix`, on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from tiny_pipeline import write_portrait

from dreamportrait.cli.mix import mix as command
from dreamportrait.export.sheets import Row, draw_sheet
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

PROMPTS = ("a man", "an old woman", "a bald man")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


def run(*words: object) -> Result:
    return CliRunner().invoke(command, ["--device", "cpu", *map(str, words)])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_steps_between_prompts(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix.png"
    done = run(*PROMPTS, "--model", model, "--seeds", 3, "--steps", 5, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote {out}: 5 portraits, seeds 3\n"
    steps = DreamPortraitPipeline.from_pretrained(model).mix(PROMPTS, 3).steps(5)
    expected = draw_sheet([Row("a man to an old woman to a bald man", steps.colors[:, 0])])
    assert np.array_equal(read(out), np.asarray(expected))


def test_layer_by_layer(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix.png"
    done = run(*PROMPTS[:2], "--model", model, "--seeds", 3, "--steps", 4, "--by-layers", "--out", out)
    assert done.exit_code == 0, done.output
    steps = DreamPortraitPipeline.from_pretrained(model).mix(PROMPTS[:2], 3).steps(4, by_layers=True)
    assert np.array_equal(read(out), np.asarray(draw_sheet([Row("a man to an old woman", steps.colors[:, 0])])))
    wrong = run(*PROMPTS[:2], "--model", model, "--layers", 2, "--by-layers", "--out", tmp_path / "other.png")
    assert wrong.exit_code == 2 and "--by-layers is for the way between parts" in wrong.output


def test_steps_between_seeds(model: Path, tmp_path: Path) -> None:
    done = run("a man", "--model", model, "--seeds", "1,2", "--out", tmp_path / "mix.png", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["seeds"] == [1, 2] and len(facts["portraits"]) == 7 and facts["portraits"][0] == "a man"
    assert read(tmp_path / "mix.png").shape == (128, 192 + 7 * 128, 3)


@pytest.mark.parametrize(
    ("option", "value", "arguments"),
    [("--weights", "0.3,0.7", (0.3, 0.7)), ("--layers", "2", (2,))],
)
def test_one_portrait(model: Path, tmp_path: Path, option: str, value: str, arguments: tuple) -> None:
    out = tmp_path / "mix.png"
    done = run(*PROMPTS[:2], "--model", model, option, value, "--views", 2, "--strength", 0.8, "--out", out)
    assert done.exit_code == 0, done.output
    mix = DreamPortraitPipeline.from_pretrained(model).mix(PROMPTS[:2], 0, 2, strength=0.8)
    made = mix.blend(*arguments) if option == "--weights" else mix.layered(*arguments)
    assert np.array_equal(read(out), np.asarray(made.sheet()))
    assert torch.equal(made.views.cameras, mix.cameras)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("a man", "a woman", "--steps", 5, "--weights", "1,1"), 2, "--steps and --weights are given; choose one"),
        (("a man", "a woman", "--views", 3), 2, "--views is for one portrait"),
        (("a man", "a woman", "--weights", "a,b"), 2, "'a,b': give numbers with commas between them"),
        (("a man", "a woman", "--seeds", "1.5"), 2, "'1.5': give whole numbers with commas"),
        (("a man", "a woman", "--steps", 1), 2, "'--steps': 1 is not in the range"),
        (("a man", "a woman", "--weights", "1,2,3"), 1, "3 weights for 2 parts; give one for each"),
        (("a man", "a woman", "--layers", "9"), 1, "layers [9]: must be 1 ascending numbers from 1 to 5"),
        (("a man", "a woman", "--seeds", "1,2,3"), 1, "3 seeds for 2 prompts"),
        (("a man",), 1, "a mix needs several prompts, or several seeds of one prompt"),
        (("old", "man"), 2, 'Then write "old man"'),
    ],
)
def test_wrong_commands(model: Path, tmp_path: Path, words: tuple, code: int, message: str) -> None:
    done = run(*words, "--model", model, "--out", tmp_path / "mix.png")
    assert done.exit_code == code and message in done.output and "Traceback" not in done.output, done.output
    assert list(tmp_path.iterdir()) == []

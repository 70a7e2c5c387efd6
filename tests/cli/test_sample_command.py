"""Tests of `dreamportrait sample`, on a tiny model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_pipeline import write_portrait

from dreamportrait.cli import main
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def sample(*words: object) -> Result:
    return CliRunner().invoke(main, ["sample", "--device", "cpu", *map(str, words)])


def test_draws_what_the_pipeline_makes(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    prompts = ["a woman with red hair", "a man"]
    done = sample(*prompts, "--model", model, "--seed", 3, "--views", 2, "--truncation", 0.7, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote {out}: 2 x 2 views, seed 3\n"
    expected = DreamPortraitPipeline.from_pretrained(model)(prompts, 3, 2, truncation=0.7).sheet()
    assert np.array_equal(read(out), np.asarray(expected))


def test_depth(model: Path, tmp_path: Path) -> None:
    done = sample("a man", "--model", model, "--views", 1, "--depth", "--out", tmp_path / "sheet.jpg")
    assert done.exit_code == 0, done.output
    assert read(tmp_path / "sheet.jpg").shape == (256, 192 + 128, 3)


def test_an_existing_sheet_stays(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    out.write_bytes(b"mine")
    refused = sample("a man", "--model", "/no/such/model", "--out", out)  # refused before the model is looked up
    assert refused.exit_code == 1 and "sheet.png exists" in refused.output and out.read_bytes() == b"mine"
    done = sample("a man", "--model", model, "--out", out, "--overwrite")
    assert done.exit_code == 0 and out.read_bytes() != b"mine"


def test_a_gpu_that_is_not_there(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = sample("a man", "--model", model, "--out", tmp_path / "sheet.png", "--device", "cuda")
    assert done.exit_code == 1 and "no GPU here; choose cpu" in done.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "Missing argument 'PROMPTS...'"),
        (("a man", "--out", "OUT/sheet.png", "--strength", 1.6), 2, "'--strength': 1.6 is not in the range"),
        (("a man", "--out", "OUT/sheet.png", "--smile"), 2, "No such option"),
        (("x" * 10_000, "--out", "OUT/sheet.png"), 1, "a prompt of 10000 characters"),
        (
            ("an", "old", "man", "--out", "OUT/sheet.png"),
            2,
            'is this one prompt without quotes? Then write "an old man"',
        ),
        (
            ("an old man", "with", "glasses", "--out", "OUT/sheet.png"),
            2,
            "3 prompts, some of a single word (with, glasses)",
        ),
        (("a man", "--out", "OUT/sheet.png", "--views", 0), 2, "'--views': 0 is not in the range"),
        (("a man", "--out", "OUT/sheet.png", "--seed", -1), 2, "'--seed': -1 is not in the range"),
        (("a man", "--out", "OUT/sheet.png", "--truncation", 1.5), 2, "'--truncation': 1.5 is not in the range"),
        (("a man", "--out", "OUT/sheet.doc"), 1, "must end in one of"),
        (("a man", "--out", "OUT/sheet.png", "--model", "maxi"), 1, "no text-to-3D model 'maxi'"),
    ],
)
def test_wrong_commands(tmp_path: Path, words: tuple, code: int, message: str) -> None:
    done = sample(*(str(word).replace("OUT", str(tmp_path)) for word in words))
    assert done.exit_code == code and message in done.output and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_single_word_and_quoted_prompts_are_prompts(model: Path, tmp_path: Path) -> None:
    for number, prompts in enumerate((["man"], ["a man", "an old man"], ["", "a man"])):
        done = sample(*prompts, "--model", model, "--views", 1, "--out", tmp_path / f"{number}.png")
        assert done.exit_code == 0, done.output


def test_a_folder_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = sample("a man", "--model", "/no/such/model", "--out", tmp_path / "file" / "new" / "sheet.png")
    assert done.exit_code == 1 and "file is no folder; name another file" in done.output


def test_a_sheet_without_a_name_and_json(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = sample("a man", "--model", model, "--seed", 2, "--views", 1, "--strength", 0.5, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "out": "a-man-2.png",
        "prompts": ["a man"],
        "seed": 2,
        "views": 1,
        "model": str(model),
        "notes": {},
    }
    expected = DreamPortraitPipeline.from_pretrained(model)(["a man"], 2, strength=0.5).sheet()
    assert np.array_equal(read(tmp_path / "a-man-2.png"), np.asarray(expected))
    assert "--strength" in sample("--help").output and "Examples:" in sample("--help").output


def test_a_sheet_that_its_format_cannot_hold(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DreamPortraitPipeline, "__call__", lambda *_, **__: pytest.fail("it was drawn"))
    done = sample("a man", "--model", model, "--views", 150, "--out", tmp_path / "x.webp")
    assert done.exit_code == 1 and "1 x 150 pictures has 19392 x 128 pixels, a .webp at most 16383" in done.output


def test_the_folder_of_a_run_means_its_result(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("run: {name: x}")
    done = sample("a man", "--model", run, "--out", tmp_path / "x.png")
    assert done.exit_code == 1 and "is the folder of a run that has no result yet; continue its training" in done.output
    shutil.copytree(model, run / "portrait")
    assert sample("a man", "--model", run, "--views", 1, "--out", tmp_path / "x.png").exit_code == 0

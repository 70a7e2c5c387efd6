"""Tests of `dreamportrait evaluate` and eval/fid_msc_rp.py, on tiny models."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_pipeline import write_portrait
from toy_run import ROOT, arguments, write_faces, write_sources

from dreamportrait.cli import main
from dreamportrait.core.signals import Signals
from dreamportrait.systems.dreamportrait import callbacks
from dreamportrait.systems.dreamportrait.run import plan, prepare
from dreamportrait.training.meeting import Together

QUIET = ("samples.prompts=[]", "trainer.save_every_images=8")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return a folder with a portrait model, its CLIP and pictures."""
    folder = tmp_path_factory.mktemp("places")
    write_portrait(folder / "portrait")
    write_faces(folder / "faces")
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path / "cache"))


def words(places: Path, out: Path, **changes) -> list[str]:
    clip = places / "CLIP"
    options = {
        "checkpoint": places / "portrait",
        "dataset": places / "faces",
        "out": out,
        "clip": clip,
        "extractor": f"clip:{clip}",
        "device": "cpu",
        "num_candidates": 4,
    }
    given = {name: value for name, value in (options | changes).items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def evaluate(places, out, *flags, **changes):
    return CliRunner().invoke(main, ["evaluate", *words(places, out, **changes), *flags])


@pytest.mark.lengthy
def test_the_report(places, tmp_path):
    done = evaluate(places, tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list(found) == ["scores", "protocol", "checkpoint", "dataset", "judge", "extractor", "code", "machine"]
    assert found["scores"]["r_precision"].keys() == {"value", "low", "high", "count", "candidates"}
    assert found["scores"]["r_precision"]["count"] == 10 and found["scores"]["oracle"] is None
    assert found["protocol"] | {"count": 10, "num_candidates": 4, "seed": 0, "truncation": 1.0} == found["protocol"]
    assert found["judge"]["clip"] == str(places / "CLIP") and len(found["judge"]["sha256"]) == 64
    assert found["checkpoint"]["text"] == {"clip": str(places / "CLIP"), "layer": "penultimate"}
    assert found["extractor"]["distance"] == f"FID(clip {places / 'CLIP'})"
    assert len(found["dataset"]["fingerprint"]) == len(found["checkpoint"]["sha256"]) == 64
    text = (tmp_path / "out" / "scores.md").read_text()
    for word in ("| MSC |", "| R-Precision |", "1 of 4 captions, 10 queries; chance is 25 %", "whole pictures"):
        assert word in text
    for value in ("judge", "extractor"):
        assert found[value]["sha256"] in text
    assert "| MSC |" in done.output and done.output.endswith(f"wrote {tmp_path / 'out'}\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.json", "scores.md"]


@pytest.mark.lengthy
def test_without_out_the_report_is_here_and_stdout_is_json(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = given(tmp_path / "Made by others", places, 8)
    done = evaluate(places, None, "--json", checkpoint=None, images=images.name)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "scores-made-by-others" / "scores.json").read_text())
    again = evaluate(places, None, checkpoint=None, images=images.name)
    assert again.exit_code == 1 and "scores-made-by-others exists and is not empty" in again.output


def test_a_report_stays(places, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.json").write_text("mine")
    refused = evaluate(places, tmp_path / "out", checkpoint="/no/such/model")  # refused before the model is looked up
    assert refused.exit_code == 1 and "exists and is not empty" in refused.output
    assert evaluate(places, tmp_path / "out", "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "scores.json").read_text() != "mine"


@pytest.mark.lengthy
def test_options_reach_the_protocol(places, tmp_path):
    (tmp_path / "fixed.json").write_text(json.dumps(["a man"] * 6))
    changes = {"captions": tmp_path / "fixed.json", "seed": 3, "truncation": 0.5, "region": "face", "batch": 2}
    done = evaluate(places, tmp_path / "out", **changes)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    expected = {"count": 6, "seed": 3, "truncation": 0.5, "region": "face", "batch": 2, "prompts_for_diversity": 6}
    assert found["protocol"] | expected == found["protocol"]
    assert found["dataset"]["captions"] == str(tmp_path / "fixed.json")
    assert found["scores"]["r_precision"]["value"] == 0.25  # all captions are equal, so the 4 candidates tie


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "/no/such/model"}, "checkpoint /no/such/model is not there; name mini"),
        ({"dataset": "/no/such/data"}, "data set /no/such/data is not there"),
        ({"dataset": "miniworld:train"}, "no split 'train'"),
        ({"extractor": "dino"}, "extractor 'dino': must be inception"),
        ({"extractor": "inception:/no/such/file.pth"}, "get pt_inception-2015-12-05-6726825d.pth"),
        ({"num_images": 11}, "has 10 pictures with captions, 11 are asked for"),
        ({"num_candidates": 11}, "num_candidates=11: must be from 2 to the samples, 10"),
        ({"captions": "/no/such/captions.json"}, "captions /no/such/captions.json cannot be read"),
        ({"checkpoint": ROOT / "README.md"}, "which says what was trained"),
    ],
)
def test_wrong_commands(places, tmp_path, changes, message):
    done = evaluate(places, tmp_path / "out", **changes)
    assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_pictures_of_another_size(places, tmp_path):
    write_faces(tmp_path / "large", size=32)
    done = evaluate(places, tmp_path / "out", dataset=tmp_path / "large")
    assert done.exit_code == 1 and "pictures are 32 x 32, the generator's 16 x 16" in done.output


# Pictures of other systems.


def given(folder: Path, places: Path, count: int = 10) -> Path:
    """Copy the first pictures of the data set into a folder, named after their numbers."""
    folder.mkdir()
    for i, path in enumerate(sorted((places / "faces").rglob("*.png"))[:count]):
        shutil.copy(path, folder / f"{i}.png")
    return folder


@pytest.mark.lengthy
def test_pictures_of_another_system(places, tmp_path):
    images = given(tmp_path / "made", places, 8)
    done = evaluate(places, tmp_path / "out", checkpoint=None, images=images)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list(found) == ["scores", "protocol", "images", "dataset", "judge", "extractor", "code", "machine"]
    assert list(found["scores"]) == ["fid", "sharpness", "clip_score", "r_precision", "oracle"]
    assert found["scores"]["fid"] == pytest.approx(0, abs=1e-6)  # they are the data set's own
    assert list(found["protocol"]) == ["count", "num_candidates", "seed", "region", "batch"]
    assert found["protocol"]["count"] == 8 and found["images"]["source"] == str(images)
    text = (tmp_path / "out" / "scores.md").read_text()
    assert text.startswith(f"# {images} on {places / 'faces'}") and "| nearest real patch |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": None}, "either --checkpoint or --images, and not both"),
        ({"images": "MADE"}, "either --checkpoint or --images, and not both"),
        ({"checkpoint": None, "images": "/no/such/folder"}, "images /no/such/folder is no folder"),
        ({"checkpoint": None, "images": "MADE", "num_images": 9}, "pictures 8 of 9 are missing"),
        ({"checkpoint": None, "images": "MADE", "truncation": 0.5}, "truncation has no effect on pictures"),
        ({"checkpoint": None, "images": "MADE", "precision": "bfloat16"}, "precision has no effect on pictures"),
    ],
)
def test_wrong_commands_for_pictures(places, tmp_path, change, message):
    images = given(tmp_path / "made", places, 8)
    change = {name: images if value == "MADE" else value for name, value in change.items()}
    done = evaluate(places, tmp_path / "out", **change)
    assert done.exit_code in (1, 2) and message in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


# Measuring during training.


def train(folder: Path, monkeypatch, *changes: str):
    """Run a whole training in this process. Return its folder and the scores measured on the way."""
    found = []
    whole = callbacks.evaluate
    monkeypatch.setattr(callbacks, "evaluate", lambda *given: found.append(whole(*given)) or found[-1])
    sources = write_sources(folder / "sources")
    _, path, *words_ = arguments(sources, folder / "runs", *QUIET, *changes)
    made = plan(Path(path), tuple(words_[1::2]), "auto")
    assert not made.problems, made.problems
    prepare(made, ["train.py"], Together()).train(Signals())
    return folder / "runs" / "test", found


@pytest.mark.lengthy
def test_training_and_the_command_find_the_same(tmp_path, monkeypatch):
    clip = tmp_path / "sources" / "CLIP"
    changes = ("trainer.measure_every_images=8", "measure.count=10", "measure.num_candidates=4")
    run, found = train(tmp_path, monkeypatch, *changes, f"measure.clip={clip}", f"measure.extractor=clip:{clip}")
    assert len(found) == 3  # one per 8 of 24 images
    assert (run / "log.csv").read_text().splitlines()[0].count("msc") == 1
    saved = sorted((run / "checkpoints").iterdir())
    places = run.parent.parent / "sources"
    for number, (checkpoint, source) in enumerate(((saved[-2], saved[-2]), (saved[-1], run))):
        out = tmp_path / f"out{number}"
        done = CliRunner().invoke(
            main, ["evaluate", *words(places, out, checkpoint=source, dataset=places / "FACES", clip=clip)]
        )
        assert done.exit_code == 0, done.output
        report = json.loads((out / "scores.json").read_text())
        assert report["checkpoint"]["checkpoint"] == str(checkpoint)
        assert report["checkpoint"]["images"] == (16, 24)[number]
        expected = json.loads(json.dumps(found[number + 1].as_dict()))
        assert flat(report["scores"]) == pytest.approx(flat(expected), rel=1e-6)
    damaged(saved[-1], places, tmp_path)


def damaged(checkpoint: Path, places: Path, tmp_path: Path) -> None:
    """A damaged checkpoint must give a message and stay in place; a run without checkpoints must give a message."""
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = evaluate(places, tmp_path / "none", checkpoint=checkpoint, dataset=places / "FACES")
    assert done.exit_code == 1 and f"{checkpoint} is not a checkpoint of a training, or is damaged" in done.output
    assert checkpoint.is_file()
    shutil.rmtree(checkpoint.parent)
    done = evaluate(places, tmp_path / "none", checkpoint=checkpoint.parent.parent, dataset=places / "FACES")
    assert done.exit_code == 1 and "holds no checkpoint; continue the training" in done.output


def flat(values: dict, place: str = "") -> dict[str, float]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{place}{name}.")
        elif value is not None:
            found[f"{place}{name}"] = value
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("measure.data=/no/such/folder", "measure.data: data set /no/such/folder is not there"),
        ("measure.extractor=dino", "measure.extractor: extractor 'dino': must be"),
        ("measure.count=50", "measure.num_candidates and measure.count: 100 of 50 captions"),
    ],
)
def test_wrong_settings(tmp_path, change, message):
    sources = write_sources(tmp_path / "sources")
    given = ("trainer.measure_every_images=8", "measure.extractor=mini-clip", change)
    _, path, *words_ = arguments(sources, tmp_path / "runs", *given)
    try:
        found = [str(problem) for problem in plan(Path(path), tuple(words_[1::2]), "none").problems]
    except ValueError as error:
        found = [str(error)]
    assert any(message in text for text in found), found


# Several processes.


def by_processes(count: int, script: Path, given: list[str], cache: Path) -> str:
    """Run a script with `count` processes and return their output."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DREAMPORTRAIT_CACHE": str(cache)}
    command = [sys.executable, *launcher, str(script), *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_by_two_processes(tmp_path):
    """Two processes measure together during training; the command in one process must find the same scores."""
    sources = write_sources(tmp_path / "sources")
    clip = sources / "CLIP"
    measure = ("trainer.measure_every_images=8", "measure.count=9", "measure.num_candidates=4")
    stages = "stages=[{name: only, images: 8}]"
    changes = (*QUIET, *measure, stages, f"measure.clip={clip}", f"measure.extractor=clip:{clip}")
    by_processes(2, ROOT / "train.py", arguments(sources, tmp_path / "runs", *changes), tmp_path / "cache")
    run = tmp_path / "runs" / "test"
    with open(run / "log.csv", newline="") as file:
        (line,) = [line for line in csv.DictReader(file) if line.get("msc")]
    done = evaluate(sources, tmp_path / "out", checkpoint=run, dataset=sources / "FACES", num_images=9)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    for name in ("fid", "fid_raw", "msc"):
        assert float(line[name]) == pytest.approx(found[name], rel=3e-4)
    assert float(line["r_precision"]) == pytest.approx(found["r_precision"]["value"], abs=1e-4)


@pytest.mark.slow
def test_processes_change_nothing(places, tmp_path):
    """Three processes that share ten samples unequally must find the scores of one process."""
    found = {}
    for count in (1, 3):
        out, cache = tmp_path / f"by{count}", tmp_path / f"cache{count}"
        said = by_processes(count, ROOT / "eval" / "fid_msc_rp.py", words(places, out), cache)
        assert said.count("wrote") == 1
        found[count] = json.loads((out / "scores.json").read_text())
        assert found[count]["machine"]["processes"] == count
        assert len(list((cache / "statistics").iterdir())) == 2
    assert found[1]["dataset"] == found[3]["dataset"]
    # The batches differ, so sums have another order, and some colours are rounded to a neighbouring value.
    assert flat(found[3]["scores"]) == pytest.approx(flat(found[1]["scores"]), rel=2e-4, abs=2e-5)


@pytest.mark.lengthy
def test_a_cache_that_cannot_be_written(places, tmp_path, monkeypatch, caplog):
    """The scores are measured, and a warning at the start says that nothing is kept."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path / "home" / "cache"))
    done = evaluate(places, tmp_path / "out")
    assert done.exit_code == 0 and (tmp_path / "out" / "scores.json").exists(), done.output
    [message] = [record.getMessage() for record in caplog.records if "are not kept" in record.getMessage()]
    assert "home is no folder" in message and "the variable DREAMPORTRAIT_CACHE chooses another" in message


@pytest.mark.parametrize("seed", [2**63, 2**64, -1])
def test_seeds_beyond_64_bits(places, tmp_path, seed):
    done = evaluate(places, tmp_path / "out", seed=seed)
    assert done.exit_code == 2 and "is not in the range" in done.output

"""Tests of `make demo` on toy networks: table, sheet, continuation, and input that it refuses before any work."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_pipeline import write_portrait
from toy_run import arguments, write_sources

import train
from dreamportrait.core.signals import Interrupted
from dreamportrait.mini import demo, demo_report
from dreamportrait.mini.demo_report import PROMPTS, SEED, VIEWS
from dreamportrait.miniworld import world
from dreamportrait.miniworld.attributes import HELD_OUT, read_code
from dreamportrait.miniworld.captions import captions
from dreamportrait.miniworld.grammar import split_words, vocabulary
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights.hashing import weights_hash

pytestmark = pytest.mark.lengthy

NAMES = ["before", "after stage 1 (adapt)", "after stage 2 (align)"]
QUIET = ("samples.prompts=[]", "trainer.log_every_images=24")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def words(sources: Path, runs: Path, *changes: str) -> list[str]:
    """Return arguments for one process, ten samples and the tiny CLIP as the judge; `changes` override them."""
    clip = sources / "CLIP"
    measure = "measure.count=10", "measure.num_candidates=4", f"measure.clip={clip}", f"measure.extractor=clip:{clip}"
    return arguments(sources, runs, "trainer.devices=1", *QUIET, *measure, *changes)


def show(sources: Path, runs: Path, *changes: str) -> Result:
    return CliRunner().invoke(demo.main, words(sources, runs, *changes))


# A whole demo.


@pytest.fixture(scope="module")
def shown(sources, cache, tmp_path_factory) -> tuple[str, Path]:
    """Return the output of a demo and its folder. The demo continues a run that was stopped in the second stage."""
    runs = tmp_path_factory.mktemp("runs")
    part = CliRunner().invoke(train.main, words(sources, runs, "stages.1.images=4"))
    assert part.exit_code == 0, part.output
    result = show(sources, runs)
    assert result.exit_code == 0, result.output
    return result.output, runs / "test"


def test_it_says_what_it_does(shown, sources) -> None:
    text, folder = shown
    assert f"1. measure {sources / 'PRETRAINED'}, a generator without text conditioning" in text
    assert "2. train stage adapt: 8 images\n" in text and "3. train stage align: 16 images\n" in text
    assert "12 of 24 images were trained before." in text and "About 1 min on this machine." in text
    assert all(f"measuring {name}: 10 samples" in text for name in NAMES)
    assert f"--model {folder / 'portrait'}" in text and "configs/dreamportrait/mini_long.yaml" in text


def test_it_continues(shown) -> None:
    about = json.loads((shown[1] / "starts/001/environment.json").read_text())
    assert about["checkpoint"].endswith("images-000000012.ckpt")
    assert not (shown[1] / "starts/002").exists()


def test_the_table(shown) -> None:
    text, folder = shown
    reports = json.loads((folder / demo_report.JSON).read_text())
    table = demo_report.table(reports)
    assert table in text and table in (folder / demo_report.MARKDOWN).read_text()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert head == ["score", *NAMES, "better"]
    assert [row[0] for row in rows][:2] == ["R-Precision, 1 of 4", "MSC"] and len(rows) == 4  # without an oracle
    assert [row[4] for row in rows] == ["higher", "higher", "lower", "not near 0"]
    for i, name in enumerate(NAMES):
        scores = reports[name]["scores"]
        assert float(rows[0][i + 1].removesuffix(" %")) == pytest.approx(100 * scores["r_precision"]["value"], abs=0.05)
        assert float(rows[1][i + 1]) == pytest.approx(scores["msc"], abs=0.005)
        assert float(rows[2][i + 1]) == pytest.approx(scores["fid"], abs=5e-5)
        assert float(rows[3][i + 1]) == pytest.approx(scores["prompt_diversity"]["features"], abs=5e-5)
    text = (folder / demo_report.MARKDOWN).read_text()
    # Captions of training pictures must not be called unseen.
    assert "\n10 captions of " in text and "by chance 25 %" in text


def test_which_generators_were_measured(shown, sources) -> None:
    folder = shown[1]
    found = [json.loads((folder / demo_report.JSON).read_text())[name]["checkpoint"] for name in NAMES]
    assert [each["images"] for each in found] == [0, 8, 24]
    assert found[0]["source"] == str(sources / "PRETRAINED")
    assert found[1]["source"] == str(folder / "checkpoints/images-000000008.ckpt")
    assert len({each["sha256"] for each in found}) == 3
    assert found[2]["sha256"] == weights_hash(load_portrait(folder / "portrait").generator)


def test_the_sheet_is_there(shown) -> None:
    with Image.open(shown[1] / demo_report.SHEET) as sheet:
        assert sheet.height > len(PROMPTS) * 128 and sheet.width > 3 * len(VIEWS) * 128
    assert not [path.name for path in shown[1].iterdir() if "unfinished" in path.name]


@pytest.mark.slow
def test_two_processes(sources, cache, tmp_path) -> None:
    result = show(sources, tmp_path, "trainer.devices=2", "stages.1.accumulate=1")
    assert result.exit_code == 0, result.output
    assert list(json.loads((tmp_path / "test" / demo_report.JSON).read_text())) == NAMES
    about = json.loads((tmp_path / "test/starts/000/environment.json").read_text())
    assert about["variables"]["OMP_NUM_THREADS"] and load_config(tmp_path / "test/config.yaml").trainer.devices == 2


# Refused input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("measure.count=11", "has 10 pictures with captions, 11 are asked for"),
        ("stages.0.images=6", "6 images are no whole number of batches of 4"),
        ("trainer.devices=3", "does not divide among 3 processes"),
        ("no.such=1", "no: unknown; known are data"),
    ],
)
def test_refused_before_training(sources, cache, tmp_path, change, message) -> None:
    result = show(sources, tmp_path / "runs", change)
    assert result.exit_code == 1 and message in result.output, result.output
    assert not (tmp_path / "runs" / "test").exists()


def test_another_configuration_is_no_continuation(shown, sources) -> None:
    result = show(sources, shown[1].parent, "loss.gan_weight=2")
    assert result.exit_code == 1 and "loss.gan_weight: was 1.0 when" in result.output
    assert "choose another run.name" in result.output


def test_other_folders_are_left_alone(sources, tmp_path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "thesis.tex").write_text("mine")
    result = show(sources, tmp_path)
    assert result.exit_code == 1 and "is no run's folder and is left alone" in result.output
    assert [path.name for path in (tmp_path / "test").iterdir()] == ["thesis.tex"]


def test_the_repository_is_needed(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(demo, "TRAIN", tmp_path / "train.py")
    result = CliRunner().invoke(demo.main, [])
    assert result.exit_code == 1 and "needs the whole repository" in result.output


# The training process.


@pytest.fixture
def script(monkeypatch, tmp_path) -> Path:
    """Replace train.py by a script that writes how it was started and fails. Return its path."""
    path = tmp_path / "script.py"
    path.write_text(
        "import json, os, pathlib, sys\n"
        "told = {'words': sys.argv[1:], 'environment': dict(os.environ)}\n"
        "pathlib.Path(__file__).with_name('told.json').write_text(json.dumps(told))\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(demo, "TRAIN", path)
    return path


def told(script: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(script.with_name("told.json").read_text())
    return values


@pytest.mark.parametrize(("processes", "threads"), [(1, "4"), (2, "2"), (8, "1")])
def test_how_training_is_started(script, monkeypatch, processes, threads) -> None:
    monkeypatch.setattr(demo, "count_cores", lambda: 4)
    for name in ("OMP_NUM_THREADS", *demo.ALLOCATOR):
        monkeypatch.delenv(name, raising=False)
    config = load_config(demo.CONFIG, [f"trainer.devices={processes}"])
    with pytest.raises(demo.click.ClickException, match="exit code 3.*same command continues"):
        demo.train(config, demo.CONFIG, ("a=1", "b=2"))
    assert told(script)["words"] == ["--config", str(demo.CONFIG), "--set", "a=1", "--set", "b=2"]
    expected = demo.ALLOCATOR | {"OMP_NUM_THREADS": threads}
    assert told(script)["environment"] | expected == told(script)["environment"]


def test_the_environment_given_is_kept(script, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with pytest.raises(demo.click.ClickException):
        demo.train(load_config(demo.CONFIG), demo.CONFIG, ())
    assert told(script)["environment"]["OMP_NUM_THREADS"] == "7"


# A training that notes SIGTERM, takes a while to finish its step, and ends with the code of a stopped one.
PATIENT = """
import signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
open(sys.argv[1] + ".ready", "w").close()
while not told:
    time.sleep(0.01)
time.sleep(0.5)
open(sys.argv[1], "w").write("a checkpoint")
sys.exit(143)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end_it_ends_after_its_training(tmp_path, number) -> None:
    saved = tmp_path / "checkpoint"
    outside = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP, and what is ignored stays ignored
    try:
        threading.Thread(target=signal_when_there, args=(tmp_path / "checkpoint.ready", number)).start()
        with pytest.raises(Interrupted) as stopped:
            demo.run_until_signal([sys.executable, "-c", PATIENT, str(saved)], dict(os.environ))
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    assert stopped.value.code == 128 + number and saved.read_text() == "a checkpoint"


def signal_when_there(path: Path, number: int) -> None:
    """Send this process a signal as soon as a file is there."""
    while not path.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), number)


def test_a_training_that_does_not_end_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 0.5)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    with pytest.raises(Interrupted):
        demo.run_until_signal([sys.executable, "-c", deaf], dict(os.environ))


# Sheet and prompts.


def test_the_sheet(tmp_path) -> None:
    """The sheet must show for each prompt what `dreamportrait sample` draws."""
    folders = {name: write_portrait(tmp_path / name) for name in ("one", "two")}
    sheet = np.asarray(demo_report.draw(folders, offline=True))
    pipe = DreamPortraitPipeline.from_pretrained(folders["one"])
    portraits = pipe(list(PROMPTS), seed=SEED, num_views=len(VIEWS), yaw_range=(VIEWS[0], VIEWS[-1]))
    size, top = 128, sheet.shape[0] - 128 * len(PROMPTS)
    drawn = np.asarray(portraits.sheet())[:, -3 * size :]
    for pictures in (sheet[top:, 192 : 192 + 3 * size], sheet[top:, -3 * size :]):
        assert abs(pictures.astype(int) - drawn).max() <= 2  # the batch differs, so sums are rounded differently
    assert len(np.unique(portraits.images.reshape(len(PROMPTS), -1), axis=0)) == len(PROMPTS)  # prompts differ


def test_prompts_are_unseen() -> None:
    count = load_config(demo.CONFIG).data.count
    assert count is not None
    faces = [read_code(z)[0] for z in world.identities("train", count)]
    seen = {text for i, face in enumerate(faces) for text in captions(face, world.caption_seed("train", i))}
    assert len(seen) > count and not seen & set(PROMPTS)
    assert {word for prompt in PROMPTS for word in split_words(prompt)} <= set(vocabulary())
    assert (("hair_color", "pink"), ("eyewear", "glasses")) in HELD_OUT and "pink hair and glasses" in PROMPTS[-2]
    assert (("hair_color", "blue"), ("facial_hair", "beard")) in HELD_OUT and "a blue beard" in PROMPTS[-1]

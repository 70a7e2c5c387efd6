"""A picture that cannot be read, SIGTERM, a logging server that is down, and clocks that disagree."""

import csv
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from clusters import TRAINING, assert_same_weights, fault, final
from forks import ended, free_port, start_ranks
from toy_run import arguments

pytestmark = pytest.mark.faults


@pytest.fixture
def broken(sources: Path, tmp_path: Path) -> Path:
    """Return sources in which one of ten pictures is cut to half."""
    shutil.copytree(sources, tmp_path / "broken")
    picture = sorted((tmp_path / "broken/FACES").rglob("*.png"))[3]
    with open(picture, "r+b") as file:
        file.truncate(picture.stat().st_size // 2)
    return tmp_path / "broken"


def test_a_corrupt_picture_is_refused(broken: Path, record, tmp_path: Path) -> None:
    begun = time.monotonic()
    codes, text = ended(start_ranks(2, arguments(broken, tmp_path / "runs", *TRAINING), tmp_path))
    assert all(code == 1 for code in codes), text
    assert "img00000003.png" in text and "data.unreadable=skip" in text, text
    record("corrupt picture, data.unreadable=refuse", seconds=time.monotonic() - begun)


def test_a_corrupt_picture_is_skipped_and_counted(broken: Path, record, tmp_path: Path) -> None:
    begun = time.monotonic()
    given = arguments(broken, tmp_path / "runs", *TRAINING, "data.unreadable=skip")
    codes, text = ended(start_ranks(2, given, tmp_path))
    assert codes == [0, 0], text
    assert "picture 3 is skipped, the next one takes its place" in text and "img00000003.png" in text
    with open(tmp_path / "runs/test/log.csv", newline="") as file:
        counts = [int(row["skipped_images"]) for row in csv.DictReader(file)]
    # 24 images are two epochs of ten pictures and four of a third, so it comes two or three times.
    assert counts == sorted(counts) and counts[-1] in (2, 3)
    record("corrupt picture, data.unreadable=skip", seconds=time.monotonic() - begun, lost_images=0)


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm(sources: Path, undisturbed, record, tmp_path: Path, rank: int) -> None:
    given = arguments(sources, tmp_path / "runs", *TRAINING)
    ranks, log = start_ranks(2, given, tmp_path), tmp_path / "runs/test/log.csv"
    while not (log.exists() and log.read_text().count("\n") > 1):
        assert all(each.process.is_alive() for each in ranks), ranks[0].text()
        time.sleep(0.01)
    os.kill(ranks[rank].pid, signal.SIGTERM)
    begun = time.monotonic()
    codes, text = ended(ranks)
    seconds = time.monotonic() - begun
    assert codes == [143, 143] and "SIGTERM: stopped after" in text, (codes, text)
    codes, text = ended(start_ranks(2, given, tmp_path / "again"))
    assert codes == [0, 0], text
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    record(f"SIGTERM to rank {rank} of 2", seconds=seconds, lost_images=0)


def test_clocks_that_disagree(sources: Path, undisturbed, record, tmp_path: Path) -> None:
    """One process's clock is a day late and jumps; files of the folder have times in the wrong order."""
    begun, given = time.monotonic(), arguments(sources, tmp_path / "runs", *TRAINING)
    short = [word.replace("images: 24", "images: 16") for word in given]
    skewed = {"FAULT": fault("clock", tmp_path / "never")}
    codes, text = ended(start_ranks(2, short, tmp_path / "first", **skewed))
    assert codes == [0, 0], text
    for age, path in enumerate(sorted((tmp_path / "runs/test/checkpoints").iterdir())):
        os.utime(path, (1e9 - age * 86_400,) * 2)  # the newest file has the oldest time
    codes, text = ended(start_ranks(2, given, tmp_path / "second", **skewed))
    assert codes == [0, 0] and "images-000000016.ckpt" in text, text
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    record("clock skew of one process", seconds=time.monotonic() - begun, lost_images=0)


def test_processes_whose_weights_differ(sources: Path, undisturbed, record, tmp_path: Path) -> None:
    """One bit of a weight flips in one process: no checkpoint is written from then on."""
    given = arguments(sources, tmp_path / "runs", *TRAINING)
    ranks = start_ranks(2, given, tmp_path, FAULT=fault("weights", tmp_path / "once"))
    codes, text = ended(ranks)
    assert codes == [1, 1] and "the weights of rank 1 are not those of rank 0" in text, text
    assert not (tmp_path / "runs/test/checkpoints/images-000000016.ckpt").exists()
    codes, text = ended(start_ranks(2, given, tmp_path / "again"))
    assert codes == [0, 0], text
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    record("one bit of a weight flips in one process", lost_images=8)


def test_the_logging_server_is_down(sources: Path, alone, record, tmp_path: Path) -> None:
    """Nothing listens at the server's address: the training goes on, its values are in log.csv and W&B's own files."""
    begun, given = time.monotonic(), arguments(sources, tmp_path / "runs", *TRAINING)
    given = [word.replace("run.offline=true", "run.offline=false") for word in given]
    given += ["--set", "logging.wandb=online", "--set", "run.offline=false"]
    server = {"WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}", "WANDB_API_KEY": "0" * 40}
    [code], text = ended(start_ranks(1, given, tmp_path, **server))
    assert code == 0, text
    assert_same_weights(final(tmp_path / "runs"), alone)
    record("W&B down from the start", seconds=time.monotonic() - begun, lost_images=0)

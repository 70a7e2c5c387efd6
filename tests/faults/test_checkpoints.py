"""The disk gets full while a checkpoint is written; a checkpoint is cut or has a flipped bit; two runs in a folder."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from clusters import TRAINING, assert_same_weights, final
from forks import ended, start_ranks
from toy_run import arguments

from dreamportrait.training.checkpoints import damage
from dreamportrait.training.states import load_state

pytestmark = pytest.mark.faults


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes in memory."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(sources: Path, alone, record, tmp_path: Path) -> None:
    begun, runs = time.monotonic(), tmp_path / "disk"
    with small_disk(runs, 1_000_000):  # one checkpoint of half a megabyte, and not a second one
        given = arguments(sources, runs, *TRAINING)
        [code], text = ended(start_ranks(1, given, tmp_path / "full"))
        assert code == 1 and text.count("Error: ") == 1 and "No space left on device" in text, text
        assert [path.name for path in (runs / "test/checkpoints").iterdir()] == ["images-000000008.ckpt"]
        subprocess.run(["mount", "-o", "remount,size=10000000", runs], check=True)
        [code], text = ended(start_ranks(1, given, tmp_path / "more"))
        assert code == 0 and "images-000000008.ckpt" in text, text
        assert_same_weights(final(runs), alone)
    record("disk full during a checkpoint", seconds=time.monotonic() - begun, lost_images=8)


def cut(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip])
def test_a_damaged_checkpoint(sources: Path, alone, record, tmp_path: Path, harm) -> None:
    given = arguments(sources, tmp_path, *TRAINING)
    [code], text = ended(start_ranks(1, given, tmp_path / "first"))
    assert code == 0, text
    newest = tmp_path / "test/checkpoints/images-000000024.ckpt"
    harm(newest)
    begun = time.monotonic()
    [code], text = ended(start_ranks(1, given, tmp_path / "second"))
    assert code == 0, text
    assert f"a checkpoint was damaged, now {newest}.damaged; continuing from the one before" in text
    assert "images-000000016.ckpt" in text and newest.with_name(newest.name + ".damaged").exists()
    assert_same_weights(final(tmp_path), alone)
    name = {cut: "checkpoint cut to half", flip: "one bit of a checkpoint flipped"}[harm]
    record(name, seconds=time.monotonic() - begun, lost_images=8)


def test_any_flipped_bit_is_found_or_harmless(sources: Path, record, tmp_path: Path) -> None:
    """Names and sizes that an archive stores twice, and paddings, may change without a trace in the values."""
    [code], text = ended(start_ranks(1, arguments(sources, tmp_path, *TRAINING), tmp_path / "out"))
    assert code == 0, text
    path, copy = tmp_path / "test/checkpoints/images-000000024.ckpt", tmp_path / "copy.ckpt"
    whole, draws, found = final(tmp_path), random.Random(18), 0
    for _ in range(400):
        shutil.copy(path, copy)
        place, bit = draws.randrange(path.stat().st_size), draws.randrange(8)
        with open(copy, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << bit]))
        if damage(copy) is not None:
            found += 1
            continue
        state = load_state(copy)
        assert state is not None
        assert_same_weights(state, whole)
        assert torch.equal(torch.tensor(state["images"]), torch.tensor(whole["images"]))
    record("400 random bits of a checkpoint flipped", found=found, harmless=400 - found)
    assert found > 200  # three quarters of the file are values


def test_two_runs_in_one_folder(sources: Path, alone, record, tmp_path: Path) -> None:
    given = arguments(sources, tmp_path, *TRAINING)
    [first] = start_ranks(1, given, tmp_path / "first")
    while not (tmp_path / "test/log.csv").exists():
        assert first.process.is_alive(), first.text()
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)  # so that it has not ended when the second one looks
    begun = time.monotonic()
    [code], text = ended(start_ranks(1, given, tmp_path / "second"))
    seconds = time.monotonic() - begun
    os.kill(first.pid, signal.SIGCONT)
    assert code == 1 and "is in use: another training writes to it" in text, text
    [code], text = ended([first])
    assert code == 0, text
    assert len(list((tmp_path / "test/starts").iterdir())) == 1
    assert_same_weights(final(tmp_path), alone)
    record("two runs in one folder", seconds=seconds, lost_images=0)

"""A run is killed with SIGKILL 50 times, at random moments from its start to its end."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from clusters import assert_same_weights, final
from forks import ended, start_ranks
from toy_run import arguments

pytestmark = pytest.mark.faults
KILLS, IMAGES = 50, 80
TRAINING = (f"stages=[{{name: only, images: {IMAGES}}}]", "samples.prompts=[]", "trainer.save_every_images=4")


def test_fifty_kills(sources: Path, record, tmp_path: Path) -> None:
    whole = arguments(sources, tmp_path / "whole", *TRAINING)
    begun = time.monotonic()
    codes, text = ended(start_ranks(1, whole, tmp_path / "whole-out"))
    assert codes == [0], text
    longest = time.monotonic() - begun
    draws = random.Random(18)
    kills = runs = starts = 0
    while kills < KILLS:
        folder = tmp_path / f"run{runs}"
        given, reached = arguments(sources, folder, *TRAINING), 0
        while True:
            starts += 1
            [process] = start_ranks(1, given, tmp_path / f"out{runs}")
            # Most of the time goes into a start, so that early and late moments are all hit.
            process.process.join(draws.uniform(0, longest))
            finished = process.process.exitcode
            if finished is None and kills < KILLS:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            [code], text = ended([process])
            newest = newest_images(folder)
            assert newest >= reached, f"images {reached} were saved, and {newest} are there after kill {kills}"
            reached = newest
            if code == 0:
                break
            assert code == -signal.SIGKILL, text
        runs += 1
        assert_same_weights(final(folder, IMAGES), final(tmp_path / "whole", IMAGES))
        assert not list(folder.rglob("*.unfinished")) and not list(folder.rglob("*.damaged"))
    record("SIGKILL 50 times", seconds=time.monotonic() - begun, kills=kills, runs=runs, starts=starts, lost_images=0)


def newest_images(folder: Path) -> int:
    return max((int(path.stem[-9:]) for path in folder.glob("test/checkpoints/images-*.ckpt")), default=0)

"""A process of a run hangs: it sleeps in the middle of a step, or it is stopped altogether."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from clusters import TRAINING, assert_same_weights, fault, final
from forks import ended, start_ranks
from toy_run import arguments

pytestmark = pytest.mark.faults
PATIENCE = 5
CAUSES = {
    "hang": "does not come to it: it is at .*faulty_train.py:\\d+ \\(hang\\)",
    "stop": "shows no sign of life",
}


@pytest.mark.parametrize("kind", CAUSES)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_hanging_rank_is_named(sources: Path, undisturbed, record, tmp_path: Path, kind: str, rank: int) -> None:
    changes = (*TRAINING, f"trainer.patience_seconds={PATIENCE}")
    given = arguments(sources, tmp_path / "runs", *changes)
    ranks = start_ranks(2, given, tmp_path, FAULT=fault(kind, tmp_path / "once", rank))
    while not (tmp_path / "once").exists():
        assert all(each.process.is_alive() for each in ranks), "".join(each.text() for each in ranks)
        time.sleep(0.1)
    begun = time.monotonic()
    ranks[1 - rank].process.join(60)
    seconds = time.monotonic() - begun
    assert ranks[1 - rank].process.exitcode == 1
    os.kill(ranks[rank].pid, signal.SIGKILL)  # as a launcher does when one process has ended
    _, text = ended(ranks)
    assert f"rank {1 - rank} waited {PATIENCE} s in an exchange" in text
    [line] = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert re.search(f"rank {rank}( \\(.*\\))? {CAUSES[kind]}", line), line
    codes, text = ended(start_ranks(2, given, tmp_path / "again"))
    assert codes == [0, 0], text
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    name = {"hang": "sleeps", "stop": "is stopped (SIGSTOP)"}[kind]
    record(f"rank {rank} {name}, patience {PATIENCE} s", seconds=seconds, lost_images=4)

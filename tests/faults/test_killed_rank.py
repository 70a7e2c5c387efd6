"""A process of a run is killed in the middle of a step, under torchrun, which starts all of them again."""

import sys
import time
from pathlib import Path

import pytest
from clusters import FAULTY, HERE, TRAIN, TRAINING, assert_same_weights, checkout, fault, final, run
from forks import free_port
from toy_run import arguments

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_restarted(sources: Path, undisturbed, record, tmp_path: Path, rank: int) -> None:
    begun, given = time.monotonic(), arguments(sources, tmp_path / "runs", *TRAINING)
    command = HERE.torchrun(*given, workers=2, restarts=1, MASTER_PORT=str(free_port()))
    done = run(command, checkout(tmp_path / "checkout", FAULTY), FAULT=fault("kill", tmp_path / "once", rank))
    assert done.code == 0 and (tmp_path / "once").exists(), done.text
    assert "images-000000008.ckpt" in done.text  # where the second start begins: half a step after 12 images is lost
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    record(f"rank {rank} killed", seconds=time.monotonic() - begun, lost_images=4)


def test_restarts_without_a_store_of_their_own_are_refused(sources: Path, tmp_path: Path) -> None:
    """Workers that are started again would read the addresses of the dead ones."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*torchrun, str(TRAIN), *arguments(sources, tmp_path / "runs", *TRAINING)]
    done = run(command, tmp_path, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="0")
    assert done.code != 0 and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in done.text, done.text
    assert not (tmp_path / "runs").exists()

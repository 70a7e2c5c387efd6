"""Tests that processes of a run start together or not at all: one message of rank 0 within a minute, none left over."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from clusters import HERE, TRAINING, checkout, fault, run
from forks import ended, free_port, start, start_ranks
from toy_run import arguments

pytestmark = pytest.mark.slow
MINUTE = 60  # the promise; processes that are still there after it are killed, and their exit code is then None


def refused(
    sources: Path, folder: Path, changes: Sequence[str] = (), more: Sequence[str] = (), **variables: str
) -> str:
    """Start two processes that cannot start together, and return their one message. more: settings of rank 1."""
    given = arguments(sources, folder / "runs", *TRAINING, *changes)
    other = [word for setting in more for word in ("--set", setting)]
    ranks = start_ranks(2, given, folder / "out", more={1: other}, **variables)
    codes, text = ended(ranks, MINUTE)
    assert codes == [1, 1], text
    assert not (folder / "runs").exists()  # nothing was written
    [message] = text.split("Error: ")[1:]
    assert f"Error: {message}" in ranks[0].text()
    return message


def test_ranks_with_different_configurations(sources: Path, tmp_path: Path) -> None:
    message = refused(sources, tmp_path, more=("optim.lr_generator=0.001", "data.batch=8"))
    assert "rank 1: (" in message and "optim.lr_generator is 0.001, rank 0 has 0.0025" in message
    assert "data.batch is 8, rank 0 has 4" in message


def test_ranks_with_different_code(sources: Path, tmp_path: Path) -> None:
    message = refused(sources, tmp_path, FAULT=fault("code", tmp_path / "never"))
    assert "rank 1: (" in message and "dreamportrait/training/losses.py is '00000000', rank 0 has '" in message


def test_a_device_that_one_machine_lacks(sources: Path, tmp_path: Path) -> None:
    message = refused(sources, tmp_path, more=("trainer.accelerator=gpu",), CUDA_VISIBLE_DEVICES="")
    assert "rank 1: (" in message and "trainer.accelerator: PyTorch sees no GPU here" in message


def test_a_world_that_does_not_divide_the_batch(sources: Path, tmp_path: Path) -> None:
    stage = "stages=[{name: only, images: 24, accumulate: 4}]"
    message = refused(sources, tmp_path, changes=(stage,))
    assert "a batch of 4 does not divide among 2 processes x 4 parts; choose a multiple" in message
    assert "rank" not in message  # all have this problem


def test_learning_rates_for_another_batch(sources: Path, tmp_path: Path) -> None:
    message = refused(sources, tmp_path, changes=("optim.lr_batch=2",))
    assert "optim.lr_batch and data.batch: learning rates for batches of 2, and batches of 4" in message


def test_a_rank_that_is_never_started(sources: Path, tmp_path: Path) -> None:
    given = arguments(sources, tmp_path / "runs", *TRAINING)
    variables = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "DREAMPORTRAIT_JOIN_SECONDS": "3"}
    codes, text = ended(start_ranks(1, given, tmp_path / "out", **variables), MINUTE)
    assert codes == [1] and "rank 1: has not come within 3 s" in text, text


def test_a_wrong_address_of_rank_0(sources: Path, tmp_path: Path) -> None:
    """Rank 1 looks where nobody listens. The message of rank 0 names it."""
    given, ranks = arguments(sources, tmp_path / "runs", *TRAINING), []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "DREAMPORTRAIT_JOIN_SECONDS": "3"}
        ranks.append(start(given, tmp_path / f"rank{rank}.txt", place))
    codes, text = ended(ranks, MINUTE)
    assert codes == [1, 1], text
    assert "rank 1: has not come within 3 s; look at its own messages" in ranks[0].text()
    assert "rank 1 (" in ranks[1].text() and "nothing answers at 127.0.0.1" in ranks[1].text()


def test_a_wrong_rendezvous_address_of_torchrun(sources: Path, tmp_path: Path) -> None:
    given = arguments(sources, tmp_path / "runs", *TRAINING)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODES": "2", "NODE_RANK": "1"}
    done = run(HERE.torchrun(*given, **place), checkout(tmp_path / "checkout"), DREAMPORTRAIT_JOIN_SECONDS="3")
    assert done.code == 1 and done.text.count("\n") == 1, done.text
    assert "machine 1 (" in done.text and "nothing answers at 127.0.0.1" in done.text

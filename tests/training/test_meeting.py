"""Tests of the start of a run in several processes, here threads: one message for all differences, and nobody waits."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from dreamportrait.training.meeting import Facts, Together, differences, join

Run = Callable[[int], Facts]  # what a process does at the start: its rank -> its facts


def meet(run: Run, world: int, missing: tuple[int, ...] = (), patience: float = 10) -> dict[int, BaseException | Facts]:
    """Run the start in all processes but the missing ones. Return what each got: facts, or its error."""
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=30))
    found: dict[int, BaseException | Facts] = {}

    def process(rank: int) -> None:
        try:
            with Together(rank, world, store).checked(patience) as facts:
                facts |= run(rank)
            found[rank] = facts
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world) if rank not in missing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def told(found: dict[int, Any]) -> str:
    """Return the message of the first process. All others must have ended without one."""
    assert all(isinstance(error, SystemExit) and error.code == 1 for rank, error in found.items() if rank)
    assert isinstance(found[0], ValueError)
    return str(found[0])


def test_processes_that_agree() -> None:
    facts: Facts = {"data.batch": 4, "stages": [{"name": "a"}], "nothing": None}
    assert meet(lambda rank: facts, 3) == {0: facts, 1: facts, 2: facts}


def test_a_process_alone_waits_for_nobody() -> None:
    with Together().checked(0) as facts:
        facts["x"] = 1
    with pytest.raises(ValueError, match="own error"), Together().checked(0):
        raise ValueError("own error")


def test_differences_are_named_with_their_ranks() -> None:
    other = {2: {"lr": 0.002}, 3: {"lr": 0.002}, 5: {"code.py": "1234"}}
    message = told(meet(lambda rank: {"lr": 0.001, "batch": 4} | other.get(rank, {}), 6))
    lines = message.splitlines()
    assert lines[0] == "not all processes can start, so none does:"
    assert "  ranks 2-3: (" in lines[1] and lines[1].endswith(") lr is 0.002, rank 0 has 0.001")
    assert "  rank 5: (" in lines[2] and lines[2].endswith(") code.py is '1234', rank 0 has 'nothing'")
    assert len(lines) == 4 and "the same command" in lines[3]


def test_an_error_of_one_process_is_told_by_the_first() -> None:
    def run(rank: int) -> Facts:
        if rank == 1:
            raise ValueError("2 processes for 1 GPUs")
        return {}

    message = told(meet(run, 3))
    assert "  rank 1: (" in message and ") 2 processes for 1 GPUs\n" in message


def test_the_same_error_of_all_is_told_once_and_as_it_is() -> None:
    def run(rank: int) -> Facts:
        raise ValueError("a batch of 5 does not divide among 2 processes")

    assert told(meet(run, 3)) == "a batch of 5 does not divide among 2 processes"


def test_an_error_of_the_first_process_stops_all() -> None:
    def run(rank: int) -> Facts:
        if rank == 0:
            raise OSError("the folder is in use")
        return {"x": 1}

    found = meet(run, 3)
    assert isinstance(found[0], OSError) and str(found[0]) == "the folder is in use"
    assert all(isinstance(found[rank], SystemExit) for rank in (1, 2))


def test_a_bug_in_one_process_keeps_its_trace() -> None:
    def run(rank: int) -> Facts:
        if rank == 1:
            raise TypeError("a bug")
        return {}

    found = meet(run, 2)
    assert isinstance(found[1], TypeError) and "  rank 1: (" in str(found[0]) and "a bug" in str(found[0])


def test_a_process_that_does_not_come_is_named_in_time() -> None:
    begun = time.monotonic()
    message = told(meet(lambda rank: {}, 4, missing=(2,), patience=0.3))
    assert "  rank 2: has not come within 0.3 s" in message and "rank 1" not in message
    assert time.monotonic() - begun < 30  # a bound against waiting for the store's own 30 s for each process


def test_the_first_process_does_not_come() -> None:
    found = meet(lambda rank: {}, 3, missing=(0,), patience=-4.8)  # it waits 5 s longer than the first one would
    assert all(isinstance(error, ValueError) and "for rank 0 in vain" in str(error) for error in found.values())


def test_many_differences_are_cut() -> None:
    facts = {f"file{i}": "a" for i in range(20)}
    reports = {1: {"host": "node2", "problem": None, "facts": dict.fromkeys(facts, "b")}}
    found = differences({"facts": facts, "problem": None}, reports, 2, 1)[1]
    assert found.startswith("(node2) file0 is 'b', rank 0 has 'a', file1") and found.endswith("and 12 more")


def test_two_rounds_are_kept_apart() -> None:
    store, found = dist.HashStore(), []

    def process(rank: int) -> None:
        together = Together(rank, 2, store)
        with together.checked(10) as facts:
            facts["a"] = 1
        try:
            with together.checked(10) as facts:
                facts["a"] = rank
        except (ValueError, SystemExit) as error:
            found.append(type(error))

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.__name__ for each in found) == ["SystemExit", "ValueError"]


# The address at which processes meet.


def test_addresses_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    assert join().store is None  # no launcher
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="MASTER_ADDR='', MASTER_PORT='': must be the machine of rank 0"):
        join()
    monkeypatch.setenv("MASTER_ADDR", "nowhere.invalid")
    monkeypatch.setenv("MASTER_PORT", "29400")
    monkeypatch.setenv("DREAMPORTRAIT_JOIN_SECONDS", "0.2")
    with pytest.raises(ValueError, match=r"rank 1 \(.+\): nothing answers at nowhere.invalid:29400 after 0.2 s"):
        join()

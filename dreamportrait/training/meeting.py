"""The start of a run in several processes: they compare what they are about to do before they load anything.

    together = join()
    with together.checked(60) as facts:       # in every process
        plan = ...                            # an error here is told by rank 0, with the rank that has it
        facts |= {"optim.lr_generator": ...}  # differences are told by rank 0, too

torchrun, or the script of another launcher, sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The processes meet in
PyTorch's key-value store at that address; the process group is later made from the same store.
"""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from dreamportrait.core.errors import brief, first_line, listed
from dreamportrait.core.network import JOIN_SECONDS, RULE, join_seconds, reach

_LEAVE_SECONDS = 5.0  # for the others to read what the first process found
_SHOWN = 8  # differences of one process in a message
Facts = dict[str, Any]


class Together:
    """All processes of a run, before they have a process group. A single process has no store."""

    def __init__(self, rank: int = 0, world: int = 1, store: dist.Store | None = None) -> None:
        self.rank, self.world, self.store = rank, world, store
        self._rounds = 0

    @contextmanager
    def checked(self, patience: float) -> Iterator[Facts]:
        """Run the block in every process, and go on only if none failed and all put the same facts into the dictionary.

        Otherwise the first process raises its own error, or a ValueError that names ranks and differences, and the
        others end with exit code 1. patience: seconds that a process waits for the others when it has come this far.
        """
        facts: Facts = {}
        if self.store is None:
            yield facts
            return
        try:
            yield facts
        except BaseException as error:
            try:
                self._agree(facts, error, patience)
            except SystemExit:
                if isinstance(error, ValueError | OSError):  # the first process has told it
                    raise
            raise
        self._agree(facts, None, patience)

    def _agree(self, facts: Facts, error: BaseException | None, patience: float) -> None:
        assert self.store is not None
        store, self._rounds = dist.PrefixStore(f"round {self._rounds}", self.store), self._rounds + 1
        problem = None if error is None else str(error) or type(error).__name__
        report = {"host": platform.node(), "problem": problem, "facts": json.loads(json.dumps(facts))}
        try:
            if self.rank:
                self._hear(store, report, patience)
            else:
                self._judge(store, report, error, patience)
        except dist.DistError as lost:
            message = f"rank {self.rank} lost the others at the start: {first_line(lost)}; start all of them again"
            raise ValueError(message) from lost

    def _hear(self, store: dist.Store, report: Facts, patience: float) -> None:
        """Send the report to the first process. End unless it finds that all agree."""
        store.set(str(self.rank), json.dumps(report))
        if not _await(store, "verdict", patience + _LEAVE_SECONDS):
            raise ValueError(
                f"rank {self.rank} ({report['host']}) has waited {patience:g} s for rank 0 in vain; look at its "
                "messages, and start all of them again"
            )
        agreed = store.get("verdict") == b"agreed"
        store.set(f"{self.rank} left", "")
        if not agreed:
            raise SystemExit(1)

    def _judge(self, store: dist.Store, own: Facts, error: BaseException | None, patience: float) -> None:
        """Compare the reports of all processes. Raise ValueError with all differences."""
        until = time.monotonic() + patience
        reports: dict[int, Facts] = {}
        for rank in range(1, self.world):
            if _await(store, str(rank), until - time.monotonic()):
                reports[rank] = json.loads(store.get(str(rank)))
        found = differences(own, reports, self.world, patience)
        agreed = error is None and not found
        store.set("verdict", "agreed" if agreed else "refused")
        if agreed:
            return
        for rank in reports:  # this process may hold the store, and takes it along when it ends
            _await(store, f"{rank} left", _LEAVE_SECONDS)
        if error is None or set(found.values()) - {str(error)}:
            raise ValueError(_told(found, own["problem"])) from error


def join() -> Together:
    """Meet the other processes that torchrun or another launcher has started. Without a launcher there are none."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Together()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdecimal():
        raise ValueError(
            f"MASTER_ADDR={address!r}, MASTER_PORT={port!r}: must be the machine of rank 0 and a free port there"
        )
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    patience = join_seconds()
    if not hosts:
        try:
            reach(address, int(port), patience)  # PyTorch's own client would write traces while it waits
        except ValueError as error:
            raise ValueError(
                f"rank {rank} ({platform.node()}): {error}. MASTER_ADDR (torchrun: --rdzv_endpoint) {RULE}. "
                f"{JOIN_SECONDS} changes how long processes wait"
            ) from None
    try:
        store = dist.TCPStore(
            address, int(port), is_master=hosts, wait_for_workers=False, timeout=timedelta(seconds=patience)
        )
    except RuntimeError as error:
        raise ValueError(
            f"rank {rank}: no store at {address}:{port}: {first_line(error)}; choose another port"
        ) from None
    return Together(rank, world, store)


def _await(store: dist.Store, key: str, patience: float) -> bool:
    """Return whether the key appears in time. store.wait() would hold signals back and write warnings."""
    until = time.monotonic() + patience
    while not store.check([key]):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


# What the first process says.


def differences(own: Facts, reports: Mapping[int, Facts], world: int, patience: float) -> dict[int, str]:
    """Return what is wrong with each other process, by rank: it has not come, has an error, or has other facts."""
    found = {}
    for rank in range(1, world):
        if rank not in reports:
            text = f"has not come within {patience:g} s; look at its own messages"
            found[rank] = f"{text}, and whether it was started at all"
            continue
        report = reports[rank]
        if report["problem"] is not None:
            found[rank] = report["problem"]
        elif own["problem"] is None and (unlike := _unlike(own["facts"], report["facts"])):
            found[rank] = listed(unlike, _SHOWN)
        if rank in found and found[rank] != own["problem"]:
            found[rank] = f"({report['host']}) {found[rank]}"
    return found


def _unlike(own: Facts, other: Facts) -> list[str]:
    missing = "nothing"
    return [
        f"{key} is {brief(other.get(key, missing))}, rank 0 has {brief(own.get(key, missing))}"
        for key in sorted(own.keys() | other.keys())
        if own.get(key, missing) != other.get(key, missing)
    ]


def _told(found: Mapping[int, str], own: str | None) -> str:
    """Return one message for all ranks. Ranks with the same text share a line."""
    lines: dict[str, list[int]] = {}
    if own is not None:
        lines[own] = [0]
    for rank, text in found.items():
        lines.setdefault(text, []).append(rank)
    shown = [f"  {'rank' if len(ranks) == 1 else 'ranks'} {_spans(ranks)}: {text}" for text, ranks in lines.items()]
    head = "not all processes can start, so none does:"
    return "\n".join([head, *shown, "Every machine needs the same command, the same code and the same files"])


def _spans(numbers: list[int]) -> str:
    """Return ascending numbers in a short form: 1-3, 5."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)

"""A thread that tells which process the others wait for in vain.

Every process reports once a second, in the store that the processes met in, whether it waits in an exchange and where
its main thread is. When one has waited too long, it compares these reports: the processes that are silent, or that
never came to the exchange, are the cause. The group's own time-out, some seconds later, then ends the waiting.

The first process may hold the store. If it is stopped, the store does not answer, which a second thread notices.
"""

import json
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import torch.distributed as dist

from dreamportrait.core.processes import exchanges

BEAT = 1.0  # seconds between two reports
SLACK = 10.0  # seconds that the group waits longer than this thread
ANSWER = 7.0  # seconds within which the store has answered the questions after an exchange that took too long
_PACKAGE = Path(__file__).resolve().parents[1]


class Watch:
    """The reports of this process, and what follows from those of the others."""

    def __init__(self, store: dist.Store, rank: int, world: int, patience: float) -> None:
        """patience: seconds that a process may wait in one exchange."""
        self.rank, self.world, self.patience = rank, world, patience
        self.told = False  # whether this or another process has named the cause
        self._store = dist.PrefixStore("watch", store).clone()  # a connection of its own: a store serves one at a time
        self._main = threading.get_ident()
        self._ended = threading.Event()
        self._beats = 0
        self._threads = [
            threading.Thread(target=act, name="watch", daemon=True) for act in (self._run, self._watch_the_store)
        ]

    def start(self) -> None:
        self._report()  # so that every process is known from the start
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * BEAT)

    def _run(self) -> None:
        try:
            while not self._ended.wait(BEAT):
                self._report()
                if exchanges.waited() > self.patience:
                    self._tell()
                    return
        except RuntimeError:  # the process that holds the store has ended, which ends the exchange, too
            return

    def _watch_the_store(self) -> None:
        """Name the first process if the store, which it holds, gives no answer. This thread must not use the store."""
        while not self._ended.wait(BEAT):
            if exchanges.waited() > self.patience + ANSWER and not self.told:
                self.told = True
                if self.rank == 1:  # it waits as all others do, and they cannot agree who speaks
                    click.echo(f"Error: {message([1], self.patience, 'rank 0 shows no sign of life')}", err=True)
                return

    def _report(self) -> None:
        self._beats += 1
        report = {
            "beat": self._beats,
            "exchange": exchanges.count,
            "waits": exchanges.since is not None,
            "host": platform.node(),
            "at": place_of(self._main),
        }
        self._store.set(str(self.rank), json.dumps(report))

    def _reports(self) -> dict[int, dict[str, Any]]:
        keys = [str(rank) for rank in range(self.world)]
        present = [key for key in keys if self._store.check([key])]
        return {int(key): json.loads(self._store.get(key)) for key in present}

    def _tell(self) -> None:
        before = self._reports()
        time.sleep(3 * BEAT)
        self._report()
        after = self._reports()
        if exchanges.waited() <= self.patience:  # it came after all
            return
        self.told = True
        waiting, text = verdict(before, after, self.world, self.patience)
        if self.rank == min(waiting, default=self.rank):
            click.echo(f"Error: {text}", err=True)


def verdict(
    before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], world: int, patience: float
) -> tuple[list[int], str]:
    """Return the ranks that wait, and a message about those that they wait for.

    before, after: reports by rank, some seconds apart.
    """
    silent = [r for r in range(world) if r not in after or after[r]["beat"] == before.get(r, {}).get("beat")]
    alive = [r for r in range(world) if r not in silent]
    furthest = max((after[r]["exchange"] for r in alive), default=0)
    waiting = [r for r in alive if after[r]["waits"] and after[r]["exchange"] == furthest]
    causes = [f"rank {r} ({after.get(r, {}).get('host', '?')}) shows no sign of life" for r in silent]
    for r in alive:
        if r not in waiting:
            causes.append(f"rank {r} ({after[r]['host']}) does not come to it: it is at {after[r]['at']}")
    what = "; ".join(causes) or "all have come to it and none gets an answer, so it is the network between them"
    return waiting, message(waiting, patience, what)


def message(waiting: list[int], patience: float, what: str) -> str:
    ranks = f"rank{'s' if len(waiting) > 1 else ''} {', '.join(map(str, waiting))}"
    return (
        f"{ranks} waited {patience:g} s in an exchange (trainer.patience_seconds): {what}. "
        "The same command continues from the last checkpoint"
    )


def place_of(thread: int) -> str:
    """Return where a thread is: the innermost line of this package, and the innermost of all."""
    frame = sys._current_frames().get(thread)
    innermost = own = None
    while frame is not None:
        here = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
        innermost = innermost or here
        if Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
            own = here
            break
        frame = frame.f_back
    return " in ".join(dict.fromkeys(each for each in (innermost, own) if each)) or "an unknown place"

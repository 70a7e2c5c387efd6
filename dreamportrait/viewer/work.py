"""A thread that works for many owners in turns, with a limit on what may wait.

queue = WorkQueue(limit=8)
queue.submit(owner, "portrait", make)      # replaces the owner's waiting job of that kind
queue.forget(owner)                        # drops its jobs; a running one ends at its next check
"""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)


class Busy(RuntimeError):
    """The error for a job that is refused because too many are waiting."""


class Forgotten(Exception):
    """Raised in a running job whose owner has left."""


Check = Callable[[], None]  # raises Forgotten


@dataclass(eq=False)
class _Job:
    run: Callable[[Check], None]
    due: float  # in seconds of time.monotonic; it does not start before
    forgotten: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.forgotten.is_set():
            raise Forgotten


class WorkQueue:
    """Runs one job at a time. Owners take turns, each with the job that is due first."""

    def __init__(self, limit: int, name: str = "work") -> None:
        self.limit = limit
        self._waiting: OrderedDict[Hashable, OrderedDict[str, _Job]] = OrderedDict()  # the next owner comes first
        self._running: tuple[Hashable, _Job] | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, owner: Hashable, kind: str, run: Callable[[Check], None], delay: float = 0.0) -> int:
        """Add a job, and return how many jobs come before it at most. Raise Busy if too many are waiting.

        The owner's waiting job of this kind is replaced. `run` gets a function that raises Forgotten if the owner has
        left; long jobs call it now and then.
        """
        with self._changed:
            replaces = kind in self._waiting.get(owner, ())
            before = self._count() - replaces + (self._running is not None)
            if not replaces and self._count() >= self.limit:
                raise Busy(f"{self.limit} jobs are waiting already; try again in a moment")
            jobs = self._waiting.setdefault(owner, OrderedDict())
            jobs[kind] = _Job(run, time.monotonic() + delay)
            self._changed.notify_all()
            return before

    def forget(self, owner: Hashable) -> None:
        """Drop the jobs of an owner."""
        with self._changed:
            self._waiting.pop(owner, None)
            if self._running and self._running[0] == owner:
                self._running[1].forgotten.set()

    def stop(self) -> None:
        """Drop all jobs and end the thread. A running job ends at its next check."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            if self._running:
                self._running[1].forgotten.set()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _count(self) -> int:
        return sum(len(jobs) for jobs in self._waiting.values())

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.check()
                job.run(job.check)
            except Forgotten:
                pass
            except Exception:  # the thread goes on for the other owners
                _log.exception("a job of the viewer failed")
            with self._changed:
                self._running = None

    def _next(self) -> _Job | None:
        """Wait for the next job that is due, and return it. None = stopped."""
        with self._changed:
            while not self._stopped:
                now, soonest = time.monotonic(), math.inf
                for owner, jobs in self._waiting.items():
                    due, kind = min((job.due, kind) for kind, job in jobs.items())
                    if due <= now:
                        return self._take(owner, kind)
                    soonest = min(soonest, due)
                self._changed.wait(None if soonest == math.inf else soonest - now)
            return None

    def _take(self, owner: Hashable, kind: str) -> _Job:
        jobs = self._waiting[owner]
        job = jobs.pop(kind)
        self._waiting.move_to_end(owner)
        if not jobs:
            del self._waiting[owner]
        self._running = (owner, job)
        return job

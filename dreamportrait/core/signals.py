"""Signals that ask a process to end: SIGTERM, SIGINT, SIGHUP, and SIGUSR1, which SLURM sends before a job's time is up.

    with Signals() as signals:
        prepare()                  # a signal raises Interrupted at once
        with signals.collected():
            work()                 # a signal is only noted; the work looks at signals.received

A handler must not talk to other processes: they may be waiting for this one in another exchange. Signals that the
process ignores, as under nohup, stay ignored.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")  # Windows lacks the last two
ENDING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Interrupted(SystemExit):
    """A signal asked this process to end. The exit code is the one that shells give for the signal: 143 for SIGTERM."""

    def __init__(self, number: int, done: str = "ended; the same command starts it again") -> None:
        super().__init__(128 + number)
        self.message = f"{name_of(number)}: {done}"


def name_of(number: int) -> str:
    return signal.Signals(number).name


class Signals:
    """Handlers for the signals of ENDING, in a `with` block. Outside of the main thread there are none."""

    def __init__(self, collecting: bool = False) -> None:
        """collecting: whether signals are only noted from the start."""
        self.received = 0  # number of the first signal that was noted. 0 = none
        self._collecting = collecting
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Only note signals inside the `with` block."""
        before, self._collecting = self._collecting, True
        try:
            yield
        finally:
            self._collecting = before

    def check(self, done: str) -> None:
        """Raise Interrupted if a signal was noted. done: what has been reached, and how to go on."""
        if self.received:
            raise Interrupted(self.received, done)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._collecting:
            raise Interrupted(number)
        self.received = self.received or number


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back inside the `with` block. Processes that are started in it never receive them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Trainings in processes that are forked from a server, which has imported everything: a start takes a second less.

    ranks = start_ranks(2, arguments, folder)     # RANK, WORLD_SIZE and so on, as a launcher sets them
    codes, text = ended(ranks)

Each process leads a session of its own and writes to a file, so that it can be killed and read like any other.
"""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["preloaded"])


@dataclass
class Fork:
    process: ForkServerProcess
    output: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


def start(arguments: Sequence[str], output: Path, variables: Mapping[str, str]) -> Fork:
    """Start train.py, or faulty_train.py if a FAULT is given, with these arguments."""
    process = _context.Process(target=_train, args=(list(arguments), str(output), dict(variables)), daemon=True)
    process.start()
    return Fork(process, output)


def _train(arguments: list[str], output: str, variables: Mapping[str, str]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.setsid()
    os.environ.update(variables)
    sys.argv = ["train.py", *arguments]
    import faulty_train

    import train

    (faulty_train.main if "FAULT" in variables else train.main)()


def start_ranks(
    count: int,
    arguments: Sequence[str],
    folder: Path,
    more: Mapping[int, Sequence[str]] | None = None,  # arguments of single ranks
    **variables: str,
) -> list[Fork]:
    """Start the processes of a run as a launcher does. Their outputs are in `folder`."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    place |= {"LOCAL_WORLD_SIZE": str(count)} | variables
    folder.mkdir(parents=True, exist_ok=True)
    return [
        start(
            [*arguments, *(more or {}).get(rank, ())],
            folder / f"rank{rank}-{time.time_ns()}.txt",
            place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def ended(ranks: Sequence[Fork], limit: float = 300) -> tuple[list[int | None], str]:
    """Wait for processes. Return their exit codes, None for one that still runs and is killed, and their output."""
    until = time.monotonic() + limit
    for rank in ranks:
        rank.process.join(max(0.0, until - time.monotonic()))
    codes = [rank.process.exitcode for rank in ranks]
    for rank in ranks:
        if rank.process.exitcode is None:
            rank.process.kill()
    return codes, "".join(rank.text() for rank in ranks)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port

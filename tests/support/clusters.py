"""Runs of train.py by torchrun: on one machine, and on two machines that are network namespaces of this one."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from places import ROOT
from toy_run import arguments

from dreamportrait.training.states import load_state

FAULTY = ROOT / "tests" / "support" / "faulty_train.py"
# Steps of four images, each process computes two; a checkpoint after every second step. The parts of one process are
# those of two, so all have the same gradients.
TRAINING = ("stages=[{name: only, images: 24}]", "samples.prompts=[]", "trainer.save_every_images=8")
IN_PARTS = ("stages=[{name: only, images: 24, accumulate: 2}]", *TRAINING[1:])
RESTARTS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # workers that are started again then find each other


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    seconds: float
    text: str  # of both streams


def environment(**variables: str) -> dict[str, str]:
    support = str(ROOT / "tests" / "support")
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), support]),
        "PYTHONFAULTHANDLER": "1",
        **variables,
    }


def start(command: Sequence[str], cwd: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen[str], begun: float, limit: float = 600) -> Ended:
    text, _ = process.communicate(timeout=limit)
    return Ended(process.returncode, time.monotonic() - begun, text)


def run(command: Sequence[str], cwd: Path, limit: float = 600, **variables: str) -> Ended:
    begun = time.monotonic()
    return wait(start(command, cwd, **variables), begun, limit)


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options]


def two_processes(*options: str) -> list[str]:
    return torchrun("--standalone", "--nproc_per_node=2", *options)


def training(sources: Path, runs: Path, *changes: str, script: Path = ROOT / "train.py") -> list[str]:
    return [str(script), *arguments(sources, runs, *TRAINING, *changes)]


def fault(kind: str, once: Path, rank: int = 1, images: int = 12) -> str:
    return json.dumps({"kind": kind, "rank": rank, "images": images, "once": str(once)})


def final(runs: Path, images: int = 24) -> dict[str, Any]:
    state = load_state(runs / f"test/checkpoints/images-{images:09d}.ckpt")
    assert state is not None, sorted(runs.rglob("*"))
    return state


def assert_same_weights(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that two checkpoints hold the same weights, averages and optimisers, bit for bit."""
    assert found["images"] == expected["images"]
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, found["state_dict"][name]), name
    moments = [
        [[s["exp_avg_sq"] for s in o["state"].values()] for o in each["optimizer_states"]] for each in (found, expected)
    ]
    for a, b in zip(moments[0], moments[1], strict=True):
        assert a and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Two machines.


@dataclass(frozen=True)
class Machine:
    address: str
    prefix: tuple[str, ...]  # of commands that run on it
    interface: str

    def torchrun(self, endpoint: str, *options: str, workers: int = 1) -> list[str]:
        """Return the command of one of two agents, as launch/torchrun.sh has it."""
        known = ("--nnodes=2", f"--nproc_per_node={workers}", "--rdzv_backend=c10d", "--rdzv_id=toy")
        address = (f"--rdzv_endpoint={endpoint}", f"--local_addr={self.address}")
        return [*self.prefix, *torchrun(*known, *address, *options)]

    @property
    def variables(self) -> dict[str, str]:
        return {"GLOO_SOCKET_IFNAME": self.interface, **RESTARTS}


def no_namespaces() -> str | None:
    """Return why this machine cannot have network namespaces, or None."""
    if shutil.which("ip") is None:
        return "there is no command `ip` (package iproute2)"
    name = f"dp-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return made.stderr.strip()
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


@contextmanager
def two_namespaces() -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines with networks of their own, joined by a cable."""
    names = [f"dp{os.getpid()}{side}" for side in "ab"]
    addresses = ("10.77.18.1", "10.77.18.2")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        first, second = (
            Machine(address, ("ip", "netns", "exec", name), name)
            for name, address in zip(names, addresses, strict=True)
        )
        yield first, second
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def two_addresses() -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines that are addresses of this one, where namespaces are not allowed."""
    yield Machine("127.0.0.1", (), "lo"), Machine("127.0.0.2", (), "lo")

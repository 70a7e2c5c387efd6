"""Runs of train.py by its launchers: on one machine, and on two machines that are network namespaces of this one."""

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

from forks import ended, free_port, start_ranks
from places import ROOT
from same_states import assert_same
from toy_run import arguments

from dreamportrait.training.states import load_state

TRAIN, FAULTY = ROOT / "train.py", ROOT / "tests" / "support" / "faulty_train.py"
LAUNCH = ROOT / "tools" / "launch"
# Steps of four images, each process computes two; a checkpoint after every second step. The parts of one process are
# those of two, so all have the same gradients.
TRAINING = ("stages=[{name: only, images: 24}]", "samples.prompts=[]", "trainer.save_every_images=8")
IN_PARTS = ("stages=[{name: only, images: 24, accumulate: 2}]", *TRAINING[1:])


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
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
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


def checkout(folder: Path, script: Path = TRAIN) -> Path:
    """Return a new folder with a train.py, in which launchers are started."""
    folder.mkdir(parents=True)
    (folder / "train.py").symlink_to(script)
    return folder


def fault(kind: str, once: Path, rank: int = 1, images: int = 12, **more: str) -> str:
    """Return the variable FAULT for faulty_train.py."""
    return json.dumps({"kind": kind, "rank": rank, "images": images, "once": str(once)} | more)


def undisturbed_run(processes: int, sources: Path, runs: Path) -> dict[str, Any]:
    """Train with processes beside each other on this machine, and return the last checkpoint."""
    codes, text = ended(start_ranks(processes, arguments(sources, runs, *TRAINING), runs))
    assert codes == [0] * processes, text
    return final(runs)


def final(runs: Path, images: int = 24) -> dict[str, Any]:
    state = load_state(runs / f"test/checkpoints/images-{images:09d}.ckpt")
    assert state is not None, sorted(runs.rglob("*"))
    return state


def assert_same_weights(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that two checkpoints hold the same weights, averages and optimisers, bit for bit."""
    for part in ("images", "state_dict", "optimizer_states"):
        assert_same(found[part], expected[part], part)


# Two machines.


@dataclass(frozen=True)
class Machine:
    address: str
    prefix: tuple[str, ...] = ()  # of commands that run on it
    interface: str = "lo"

    def torchrun(self, *arguments: str, workers: int = 1, restarts: int = 3, **place: str) -> list[str]:
        """Return the command that starts its processes. place: variables of tools/launch/torchrun.sh."""
        variables = {"MASTER_ADDR": self.address, "NODES": "1", "NODE_RANK": "0", "GPUS": str(workers)}
        return self.inside(variables | place | {"RESTARTS": str(restarts)}, [str(LAUNCH / "torchrun.sh"), *arguments])

    def inside(self, variables: dict[str, str], command: Sequence[str]) -> list[str]:
        """Return a command that runs another one on this machine, with these variables."""
        given = variables | {"GLOO_SOCKET_IFNAME": self.interface}
        return [*self.prefix, "env", *(f"{name}={value}" for name, value in given.items()), *command]


HERE = Machine("127.0.0.1")


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
    yield HERE, Machine("127.0.0.2")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines with networks of their own, where that is allowed."""
    with (two_addresses if no_namespaces() else two_namespaces)() as machines:
        yield machines


def start_on(
    machines: Sequence[Machine], arguments: Sequence[str], cwd: Path, **variables: str
) -> list[subprocess.Popen[str]]:
    """Start the same training on each machine."""
    place = {"MASTER_ADDR": machines[0].address, "MASTER_PORT": str(free_port()), "NODES": str(len(machines))}
    return [
        start(machine.torchrun(*arguments, **place, NODE_RANK=str(number)), cwd, **variables)
        for number, machine in enumerate(machines)
    ]

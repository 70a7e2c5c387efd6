"""train.py with a fault in one of its processes: a script for tests/faults/.

The variable FAULT is a JSON object: kind, rank, the number of images after which it happens, and a file that is made
when it has happened, so that it happens once even if the process is started again.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import train
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule


def main() -> None:
    fault = json.loads(os.environ["FAULT"])
    if int(os.environ.get("RANK", 0)) == fault.get("rank", 0) and not Path(fault["once"]).exists():
        {"clock": turn_clock, "code": change_code, "nan": spoil_loss}.get(fault["kind"], plan)(fault)
    train.main()


def plan(fault: dict[str, Any]) -> None:
    """Let the fault happen in the middle of a training step: after the generator's gradients, before the exchange."""
    update = DreamPortraitModule.update

    def faulty(self: DreamPortraitModule, name: str) -> None:
        if self.images == fault["images"] and name == "generator" and not Path(fault["once"]).exists():
            Path(fault["once"]).touch()
            FAULTS[fault["kind"]](self)
        update(self, name)

    DreamPortraitModule.update = faulty  # type: ignore[method-assign]


def kill(module: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_with_agent(module: Any) -> None:
    """End this process and torchrun, as if their machine had lost power."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(module: Any) -> None:
    time.sleep(3600)


def stop(module: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def warn(module: Any) -> None:
    """Send this process the signal that SLURM sends before the time of a job is over."""
    os.kill(os.getpid(), signal.SIGUSR1)


def change_weights(module: DreamPortraitModule) -> None:
    """Flip the lowest bit of one weight."""
    weight = next(module.averaged.parameters()).data.view(-1)
    weight[:1] = weight[:1] * (1 + 2**-22)


def spoil_loss(fault: dict[str, Any]) -> None:
    """Multiply one loss by NaN in one step."""
    note = DreamPortraitModule.note

    def spoiled(self: DreamPortraitModule, name: str, loss: Tensor) -> Tensor:
        if name == fault["loss"] and self.images == fault["images"]:
            Path(fault["once"]).touch()
            loss = loss * float("nan")
        return note(self, name, loss)

    DreamPortraitModule.note = spoiled  # type: ignore[method-assign]


FAULTS = {
    "kill": kill,
    "hang": hang,
    "stop": stop,
    "main": kill_with_agent,
    "usr1": warn,
    "weights": change_weights,
}  # in the middle of a step


def turn_clock(fault: dict[str, Any]) -> None:
    """Let this process's clock be a day late, and jump about."""
    real = time.time
    jumps = [-86_400.0]

    def skewed() -> float:
        jumps[0] = -jumps[0]
        return real() - 86_400 + jumps[0]

    time.time = skewed


def change_code(fault: dict[str, Any]) -> None:
    from dreamportrait.systems.dreamportrait import run

    versions = run.code_versions
    run.code_versions = lambda: versions() | {"dreamportrait/training/losses.py": "00000000"}


if __name__ == "__main__":
    sys.exit(main())

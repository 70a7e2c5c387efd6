"""The loop around a training step: seeds, log, guard, checkpoints.

Every step starts from a seed of its own, made of the run's seed and the step's number. A run that is stopped and
started again therefore continues exactly as if it had not been stopped, without any state of random generators.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dreamportrait.training.checkpoint import load_state, save_state


class Stateful(Protocol):
    """Modules, optimisers, averages."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class NonFiniteLoss(RuntimeError):
    """A loss became NaN or infinite; the checkpoint on disk is from before."""


def fit(
    step: Callable[[int], Mapping[str, Tensor]],  # number of the step -> losses by name; it also updates weights
    state: Mapping[str, Stateful],  # what is saved and restored
    steps: int,
    folder: Path,  # state.pt and log.csv; if they are there, the run continues
    *,
    seed: int = 0,
    save_every: int = 500,
    log_every: int = 50,
    title: str = "",
    every: Mapping[int, Callable[[int], None]] | None = None,  # interval -> called after such steps, e.g. a sheet
) -> None:
    path = folder / "state.pt"
    saved = load_state(path)
    first = 0 if saved is None else int(saved.pop("step"))
    for name, part in (saved or {}).items():
        state[name].load_state_dict(part)
    log = _Log(folder / "log.csv", first, steps, title)
    for index in range(first, steps):
        torch.manual_seed(_step_seed(seed, index))
        losses = step(index)
        done = index + 1
        if done % log_every == 0 or done == steps:
            log.write(done, _finite(losses, done, path))
        for interval, call in (every or {}).items():
            if done % interval == 0 or done == steps:
                call(done)
        if done % save_every == 0 or done == steps:
            _finite(losses, done, path)
            save_state(path, {name: part.state_dict() for name, part in state.items()} | {"step": done})


def cosine(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """A learning rate that rises over `warmup` steps, then falls as a cosine to a hundredth."""
    rising = min((step + 1) / warmup, 1.0)
    return peak * rising * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _step_seed(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index) % 2**63


def _finite(losses: Mapping[str, Tensor], step: int, path: Path) -> dict[str, float]:
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
        raise NonFiniteLoss(f"step {step}: {bad}. The last good state is {path}; lower the learning rate and continue")
    return values


class _Log:
    """One line per entry on the terminal and in a CSV file; a continued run appends."""

    def __init__(self, path: Path, first: int, steps: int, title: str) -> None:
        self.path, self.first, self.steps, self.title = path, first, steps, title
        self.start = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        elapsed = time.monotonic() - self.start
        pace = elapsed / max(step - self.first, 1)
        row = {"step": step, "seconds": round(elapsed, 1)} | {k: f"{v:.5g}" for k, v in values.items()}
        new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow(row.values())
        shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        left = pace * (self.steps - step)
        print(f"{self.title} {step}/{self.steps}  {shown}  {pace:.3f} s/step, {left / 60:.1f} min left", flush=True)

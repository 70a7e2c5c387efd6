"""The loop around a training step: seeds, log, guard, checkpoints.

Every step starts from a seed of its own, made of the run's seed and the step's number. A run that is stopped and
started again therefore continues exactly as if it had not been stopped, without any state of random generators.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dreamportrait.training.checkpoints import load_state, save_state
from dreamportrait.training.log import Table


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
    """Draws of `step` must come from torch's generator, the one that is seeded."""
    path = folder / "state.pt"
    first = _restore(state, path)
    log = _Log(folder / "log.csv", first, steps, title)
    guard = _Guard(path)
    for index in range(first, steps):
        torch.manual_seed(step_seed(seed, index))
        losses = step(index)
        done = index + 1
        guard.note(done, losses)
        if done % log_every == 0 or done == steps:
            log.write(done, guard.check())
        for interval, call in (every or {}).items():
            if done % interval == 0 or done == steps:
                call(done)
        if done % save_every == 0 or done == steps:
            guard.check()
            parts = {name: part.state_dict() for name, part in state.items()}
            guard.check_state(done, parts)
            save_state(path, parts | {"step": done})


def cosine(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """A learning rate that rises over `warmup` steps, then falls as a cosine to a hundredth."""
    rising = min((step + 1) / warmup, 1.0)
    return peak * rising * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def step_seed(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index) % 2**63


def _restore(state: Mapping[str, Stateful], path: Path) -> int:
    """The number of steps already done."""
    saved = load_state(path)
    if saved is None:
        return 0
    first = int(saved.pop("step"))
    if set(saved) != set(state):
        found = f"{path} holds {sorted(saved)}, this run has {sorted(state)}"
        raise ValueError(f"{found}: it is another run's. Name another folder, or remove it to start again")
    for name, part in saved.items():
        state[name].load_state_dict(part)
    return first


class _Guard:
    """Remembers losses and looks at them only now and then: a look waits for the GPU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.noted: list[tuple[int, dict[str, Tensor]]] = []
        self.newest: dict[str, float] = {}

    def note(self, step: int, losses: Mapping[str, Tensor]) -> None:
        self.noted.append((step, {name: loss.detach() for name, loss in losses.items()}))

    def check(self) -> dict[str, float]:
        """The newest value of each loss, also of those that are rare; raises at the first that was not finite."""
        for step, losses in self.noted:
            values = {name: float(loss) for name, loss in losses.items()}
            if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
                self._fail(step, bad)
            self.newest |= values
        self.noted.clear()
        return self.newest

    def check_state(self, step: int, parts: Mapping[str, Any]) -> None:
        """A finite loss can have an infinite gradient, and the weights are what is saved."""
        if bad := [name for name, part in parts.items() if not _all_finite(part)]:
            self._fail(step, f"NaN or infinite numbers in {', '.join(bad)} after the update")

    def _fail(self, step: int, what: object) -> None:
        good = f"The last good state is {self.path}" if self.path.exists() else "No state had been saved"
        raise NonFiniteLoss(f"step {step}: {what}. {good}; lower the learning rate and continue")


def _all_finite(part: object) -> bool:
    if isinstance(part, Tensor):
        return bool(part.isfinite().all())
    if isinstance(part, Mapping):
        return all(_all_finite(value) for value in part.values())
    return all(_all_finite(value) for value in part) if isinstance(part, list | tuple) else True


class _Log:
    """One line per entry on the terminal and in a CSV file; a continued run appends."""

    def __init__(self, path: Path, first: int, steps: int, title: str) -> None:
        self.first, self.steps, self.title = first, steps, title
        self.start = time.monotonic()
        self.table = Table(path, "step", first)  # later steps are done again

    def write(self, step: int, values: Mapping[str, float]) -> None:
        elapsed = time.monotonic() - self.start
        pace = elapsed / max(step - self.first, 1)
        self.table.add({"step": str(step), "seconds": f"{elapsed:.1f}"} | {k: f"{v:.5g}" for k, v in values.items()})
        shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        left = pace * (self.steps - step)
        print(f"{self.title} {step}/{self.steps}  {shown}  {pace:.3f} s/step, {left / 60:.1f} min left", flush=True)

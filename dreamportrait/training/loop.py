"""The loop around a training step: seeds, log, guard, checkpoints.

Every step has its own seed, computed from the run's seed and the step's number. A run that is stopped and started
again therefore continues exactly as if it had not been stopped, without saving the state of random generators.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.core.signals import Signals
from dreamportrait.training.states import load_state, save_state
from dreamportrait.training.table import Table


class Stateful(Protocol):
    """An object whose state can be saved and restored, such as a module, an optimiser or an average."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def fit(
    step: Callable[[int], Mapping[str, Tensor]],  # takes the step's number, updates weights, returns losses by name
    state: Mapping[str, Stateful],  # the parts that are saved and restored
    steps: int,
    folder: Path,  # state.pt and log.csv; if they are there, the run continues
    *,
    seed: int = 0,
    save_every: int = 500,
    save_seconds: float = 300,  # saves also when the last save is so long ago, because steps may be slow
    log_every: int = 50,
    title: str = "",
    every: Mapping[int, Callable[[int], None]] | None = None,  # interval in steps: function to call, e.g. for a sheet
    signals: Signals | None = None,  # collected; a signal ends the loop after the step, with a saved state
    say: Callable[[str], object] | None = None,  # gets a line for each entry of the log. None = it is printed
) -> None:
    """Call `step` until `steps` steps are done, and save the state on the way. Continue if `folder` holds a state.

    `step` must draw its random numbers from torch's global generator, which is seeded before each step.
    """
    path = folder / "state.pt"
    first = _restore(state, path)
    log = _Log(folder / "log.csv", first, steps, title, say or partial(print, flush=True))
    guard, saved = _Guard(path), time.monotonic()
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
        asked = signals is not None and signals.received != 0
        overdue = time.monotonic() - saved >= save_seconds
        if done % save_every == 0 or done == steps or asked or overdue:
            guard.check()
            parts = {name: part.state_dict() for name, part in state.items()}
            guard.check_state(done, parts)
            save_state(path, parts | {"step": done})
            saved = time.monotonic()
        if signals is not None:
            signals.check(f"stopped after step {done} of {steps} of {title}; the same command continues from {path}")


def cosine(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Return a learning rate that rises to `peak` over `warmup` steps, then falls as a cosine to a hundredth of it."""
    rising = min((step + 1) / warmup, 1.0)
    return peak * rising * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def minimise(
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    rate: float,  # at the first step; it falls to zero as a cosine
    steps: int,
    report: Callable[[int], object] = lambda done: None,  # called with 1 after each step
) -> None:
    """Minimise a loss in one go, such as that of a single head. Nothing is saved on the way."""
    for index in range(steps):
        set_lr(optimizer, rate * 0.5 * (1 + math.cos(math.pi * index / steps)))
        value = loss()
        if not value.isfinite():
            raise ValueError(f"step {index}: the loss is {float(value)}; the pictures, texts or weights are bad")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        report(1)


def step_seed(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index) % 2**63


def _restore(state: Mapping[str, Stateful], path: Path) -> int:
    """Restore the saved state, if there is one. Return the number of steps already done."""
    saved = load_state(path)
    if saved is None:
        return 0
    first = int(saved.pop("step"))
    if set(saved) != set(state):
        found = f"{path} holds {sorted(saved)}, this run has {sorted(state)}"
        raise ValueError(f"{found}: it belongs to another run. Name another folder, or remove it to start again")
    for name, part in saved.items():
        state[name].load_state_dict(part)
    return first


class _Guard:
    """Keep losses and check them only from time to time, because reading a value waits for the GPU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.noted: list[tuple[int, dict[str, Tensor]]] = []
        self.newest: dict[str, float] = {}

    def note(self, step: int, losses: Mapping[str, Tensor]) -> None:
        self.noted.append((step, {name: loss.detach() for name, loss in losses.items()}))

    def check(self) -> dict[str, float]:
        """Return the newest value of each loss, including those that are not computed in every step.

        Raise NonFiniteLoss for the first step with a loss that is not finite.
        """
        for step, losses in self.noted:
            values = {name: float(loss) for name, loss in losses.items()}
            if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
                self._fail(step, bad)
            self.newest |= values
        self.noted.clear()
        return self.newest

    def check_state(self, step: int, parts: Mapping[str, Any]) -> None:
        """Raise NonFiniteLoss if the state that is to be saved is not finite.

        A finite loss can have an infinite gradient, so checking the losses is not enough.
        """
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
    """Say one line per entry, and write it to a CSV file. A continued run appends to the file."""

    def __init__(self, path: Path, first: int, steps: int, title: str, say: Callable[[str], object]) -> None:
        self.first, self.steps, self.title, self.say = first, steps, title, say
        self.start = time.monotonic()
        self.table = Table(path, "step", first)  # drops the lines of later steps, which will be repeated

    def write(self, step: int, values: Mapping[str, float]) -> None:
        elapsed = time.monotonic() - self.start
        pace = elapsed / max(step - self.first, 1)
        self.table.add({"step": str(step), "seconds": f"{elapsed:.1f}"} | {k: f"{v:.5g}" for k, v in values.items()})
        shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        left = pace * (self.steps - step)
        self.say(f"{self.title} {step}/{self.steps}  {shown}  {pace:.3f} s/step, {left / 60:.1f} min left")

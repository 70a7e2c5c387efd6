"""A model of training with more processes: seconds of a step from compute, exchanges, reading and checkpoints.

Every process computes its share of the batch, and then the gradients of each optimiser are averaged once (docs/
scaling.md). The exchange begins when all gradients are there, so it adds to the time of the step. Reading happens
beside it, in other processes. `python -m benchmarks.scaling` measures what the model needs, and compares it with steps
of two processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Link:
    """What an exchange between processes reaches."""

    rate: float  # bytes that a process sends in a second, while it receives as many
    latency: float  # seconds of a round, however small its message is

    def all_reduce(self, size: float, processes: int) -> float:
        """Return the seconds of a ring all-reduce: 2 (P - 1) rounds, in each of which a process sends size / P."""
        return 2 * (processes - 1) * (self.latency + size / processes / self.rate)


@dataclass(frozen=True)
class Compute:
    """Seconds of one process for its share of a step: fixed + pictures x picture."""

    fixed: float
    picture: float

    def seconds(self, pictures: float) -> float:
        return self.fixed + pictures * self.picture


def fit_compute(times: Mapping[int, float]) -> Compute:
    """Fit measured seconds by the number of pictures, with equal relative errors."""
    fixed, picture = _line([*times], [*times.values()])
    return Compute(fixed, picture)


def fit_link(times: Mapping[int, float], processes: int) -> Link:
    """Fit measured seconds of all-reduces by their bytes, with equal relative errors."""
    start, slope = _line([*times], [*times.values()])
    rounds = 2 * (processes - 1)
    return Link(rate=rounds / processes / slope, latency=max(start, 0.0) / rounds)


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return float(start), float(slope)


@dataclass(frozen=True)
class Step:
    """Mean seconds of a step of all processes together."""

    pictures: int  # of all processes
    compute: float
    exchange: float
    reading: float = 0.0  # that compute and exchange do not hide
    checkpoint: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.exchange + self.reading + self.checkpoint

    @property
    def pace(self) -> float:
        """Return the pictures in a second."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class Machine:
    """What the model needs to know about a cluster and a configuration."""

    compute: Compute
    link: Link
    sizes: tuple[int, ...]  # bytes of each all-reduce in a step
    reading: float | None = None  # pictures that one process reads in a second. None = no limit
    checkpoint: float = 0.0  # seconds to write one, while all wait
    checkpoint_every: int = 1  # pictures

    def step(self, batch: int, processes: int, contention: float = 1.0) -> Step:
        """Return the step of a global batch. contention: by which processes on one machine slow each other down."""
        share = batch / processes
        compute = contention * self.compute.seconds(share)
        exchange = sum(self.link.all_reduce(size, processes) for size in self.sizes) if processes > 1 else 0.0
        wait = 0.0 if self.reading is None else max(0.0, share / self.reading - compute - exchange)
        return Step(batch, compute, exchange, wait, self.checkpoint * batch / self.checkpoint_every)

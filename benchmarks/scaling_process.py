"""One process of benchmarks/scaling.py. Arguments: mode, batches, repeats, a file for the result.

alone      steps of one process
apart      steps of two processes that exchange nothing: how they slow each other down on this machine
together   steps of two processes that share a batch, and all-reduces of several sizes

A launcher's variables (RANK, WORLD_SIZE, MASTER_ADDR, ...) say which process this is.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import steps
from dreamportrait.core.processes import processes
from dreamportrait.systems.dreamportrait import step as training_step
from dreamportrait.systems.dreamportrait.cost.probe import inside_trainer
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule

SIZES = [2**k for k in range(14, 27, 2)]  # bytes: 16 KB to 64 MB


def main(mode: str, batches: str, repeats: str, path: str) -> None:
    torch.set_num_threads(1)
    sizes, count = [int(word) for word in batches.split(",")], int(repeats)
    config = steps.make_config("cpu", sizes[0], "float32")
    portrait, critic = steps.make_networks("mini", config)
    module = DreamPortraitModule(portrait, critic, config)
    found: dict[str, Any] = {}
    inside_trainer(module, lambda: found.update(measure(module, mode, sizes, count)))
    if processes()[0] == 0:
        Path(path).write_text(json.dumps(found), encoding="utf-8")


def measure(module: DreamPortraitModule, mode: str, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    clock = ExchangeClock()
    training_step.average_over_processes = clock.skip if mode == "apart" else clock.average
    found: dict[str, Any] = {"steps": {batch: measure_steps(module, batch, repeats, clock) for batch in batches}}
    found["sizes"] = clock.sizes
    if mode == "together":
        found["all_reduce"] = {size: measure_all_reduce(size, 5 * repeats) for size in SIZES}
    return found


def measure_steps(module: DreamPortraitModule, batch: int, repeats: int, clock: "ExchangeClock") -> dict[str, float]:
    """Return the seconds of the mean step, of its exchanges, and how much medians differ from the fastest step."""
    _, world = processes()
    module.config = module.config.model_copy(update={"data": module.config.data.model_copy(update={"batch": batch})})
    data, share = steps.make_batch(module.generator, batch // world), steps.shares(module.config)

    def step(kind: int) -> tuple[float, float]:
        """Return the seconds of a step, from when all processes begin it, and of its exchanges."""
        module.images, clock.seconds, clock.sizes = kind * batch, 0.0, []
        if world > 1:
            dist.barrier()
        begun = time.perf_counter()
        module.training_step(data, 0)
        return time.perf_counter() - begun, clock.seconds

    step(0)  # allocates the optimisers' state
    times = {kind: [step(kind) for _ in range(repeats)] for kind in steps.KINDS}
    whole = {kind: statistics.median(a for a, _ in found) for kind, found in times.items()}
    least = {kind: min(a for a, _ in found) for kind, found in times.items()}
    inside = {kind: statistics.median(b for _, b in found) for kind, found in times.items()}
    return {
        "seconds": sum(share[kind] * whole[kind] for kind in share),
        "exchange": sum(share[kind] * inside[kind] for kind in share),
        "spread": max(whole[kind] / least[kind] - 1 for kind in share),
    }


class ExchangeClock:
    """In place of the step's exchange of gradients: it notes bytes and seconds."""

    def __init__(self) -> None:
        self.seconds, self.sizes = 0.0, list[int]()
        self._average = training_step.average_over_processes

    def average(self, tensors: Sequence[Tensor]) -> None:
        begun = time.perf_counter()
        self._average(tensors)
        self.seconds += time.perf_counter() - begun
        self.skip(tensors)

    def skip(self, tensors: Sequence[Tensor]) -> None:
        self.sizes.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def measure_all_reduce(size: int, repeats: int) -> float:
    """Return the median seconds of an all-reduce of so many bytes."""
    values, times = torch.ones(size // 4), []
    for _ in range(repeats + 1):
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(values)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main(*sys.argv[1:])

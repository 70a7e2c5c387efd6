"""Helpers that divide work among processes and exchange values between them.

Process r of R computes the samples r, r + R, r + 2R and so on. torchrun or the trainer starts the processes. A single
process computes all samples.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class Exchanges:
    """The exchanges of values between processes that this one has begun. training/watch.py reads it in a thread."""

    def __init__(self) -> None:
        self.count = 0
        self.since: float | None = None  # when the present exchange began. None = there is none

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count an exchange, which is the inside of the `with` block."""
        if self.since is not None:  # part of another one
            yield
            return
        self.count, self.since = self.count + 1, time.monotonic()
        try:
            yield
        finally:
            self.since = None

    def waited(self) -> float:
        """Return the seconds that this process has waited in the present exchange."""
        since = self.since
        return 0.0 if since is None else time.monotonic() - since


exchanges = Exchanges()


def processes() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own(count: int, batch: int) -> Iterator[list[int]]:
    """Yield the indices of the samples that this process computes, `batch` at a time."""
    rank, world = processes()
    numbers = list(range(rank, count, world))
    yield from (numbers[i : i + batch] for i in range(0, len(numbers), batch))


def gathered(values: Tensor, count: int) -> Tensor:  # [own, ...] -> [count, ...] on the CPU
    """Collect the values of all samples, in order, in every process."""
    world = processes()[1]
    if world == 1:
        return values.cpu()
    longest = -(-count // world)
    padded = values.new_zeros(longest, *values.shape[1:]).to(_exchange_device())
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in range(world)]
    with exchanges.waiting():
        dist.all_gather(parts, padded)
        _finish(padded)
    return torch.stack(parts, 1).flatten(0, 1)[:count].cpu()  # sample i is row i // R of process i % R


def everywhere(here: bool) -> bool:
    """Return whether `here` is true in every process, so that all processes take the same branch."""
    return bool(gathered(torch.tensor([here]), processes()[1]).all())


def largest(value: int) -> int:
    """Return the largest value of all processes, so that all take the same branch."""
    if processes()[1] == 1:
        return value
    found = torch.tensor(value, device=_exchange_device())
    with exchanges.waiting():
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)


def total(value: int) -> int:
    """Return the sum of the values of all processes."""
    world = processes()[1]
    return int(gathered(torch.tensor([value]), world).sum())


def _finish(exchanged: Tensor) -> None:
    """Wait for an exchange on a GPU, which only begins when it is called, so that a time-out is noticed there."""
    if exchanged.is_cuda:
        torch.cuda.current_stream(exchanged.device).synchronize()


def _exchange_device() -> torch.device:
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def joined(gpu: bool) -> Iterator[torch.device]:
    """Yield the device of this process. If torchrun started several processes, connect them first."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one exchange."""
    world = processes()[1]
    if not tensors or world == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with exchanges.waiting():
        dist.all_reduce(flat)
        _finish(flat)
    flat /= world
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))

"""Several processes measure together: of N samples, process r of R takes r, r + R, r + 2R and so on.

Started by torchrun or by a training; alone, a process does everything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> tuple[int, int]:
    """This one's number, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own(count: int, batch: int) -> Iterator[list[int]]:
    """The samples of this process, so many at a time."""
    rank, world = processes()
    numbers = list(range(rank, count, world))
    yield from (numbers[i : i + batch] for i in range(0, len(numbers), batch))


def gathered(values: Tensor, count: int) -> Tensor:  # [own, ...] -> [count, ...] on the CPU
    """Of all samples, in their order, in every process."""
    world = processes()[1]
    if world == 1:
        return values.cpu()
    longest = -(-count // world)
    padded = values.new_zeros(longest, *values.shape[1:]).to(_exchange_device())
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[:count].cpu()  # sample i is row i // R of process i % R


def everywhere(here: bool) -> bool:
    """Whether it is so in every process: what one does with others, all must do."""
    return bool(gathered(torch.tensor([here]), processes()[1]).all())


def _exchange_device() -> torch.device:
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def joined(gpu: bool) -> Iterator[torch.device]:
    """The processes that torchrun started, if it did. -> this one's device"""
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

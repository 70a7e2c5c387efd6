"""A check that all processes hold the same weights, before one of them writes a checkpoint for all."""

import torch
from torch import Tensor, nn

from dreamportrait.core.processes import gathered, processes

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_same_weights(module: nn.Module, where: str) -> None:
    """Compare weights and buffers of all processes bit for bit, by sums of their bits.

    If they differ, raise ValueError in the first process; the others end. where: for the message.
    """
    rank, world = processes()
    if world == 1:
        return
    state = module.state_dict()
    own = torch.stack([sum_of_bits(value) for value in state.values()])  # [tensors]
    found = gathered(own[None], world)  # [processes, tensors]
    differ = found != found[0]
    if not differ.any():
        return
    if rank:
        raise SystemExit(1)
    other, tensor = (int(x) for x in differ.nonzero()[0])
    names = list(state)
    raise ValueError(
        f"{where}, the weights of rank {other} are not those of rank 0: {int(differ[other].sum())} of {len(names)} "
        f"tensors differ, for example {names[tensor]}. No checkpoint was written; look for code that draws random "
        "numbers or reads data differently in each process, and for faulty memory; the same command continues from "
        "the last checkpoint"
    )


def sum_of_bits(value: Tensor) -> Tensor:  # []
    """Return the sum of a tensor's values, read as integers. One flipped bit changes it."""
    return value.detach().contiguous().view(_INTEGERS[value.element_size()]).sum(dtype=torch.int64)

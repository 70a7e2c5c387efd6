"""Several processes: each has a share of the batch, and gradients are averaged once, just before an update.

It is written out, in place of DDP's wrapper: two networks are updated in turn, by several backward passes each, some
of them through gradients. A wrapper would have to be told for each pass whether it is the last and what takes part.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor


@torch.no_grad()
def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """In place, in one exchange."""
    if not tensors or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


class SharedBatch(DDPStrategy):
    """Lightning's processes without its wrapper; all of them start with the weights of the first."""

    def configure_ddp(self) -> None:
        assert self.model is not None
        with torch.no_grad():
            for value in (*self.model.parameters(), *self.model.buffers()):
                dist.broadcast(value, 0)

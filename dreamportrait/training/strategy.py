"""How Lightning runs several processes here: gradients are averaged by the training step, and nobody waits for ever.

Each process computes a share of the batch, and gradients are averaged once, just before an update. This replaces
DDP's wrapper: two networks are updated in turn, by several backward passes each, some of them through gradients, and a
wrapper would have to know for each pass whether it is the last and which parameters it uses.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from dreamportrait.core.processes import exchanges
from dreamportrait.training.meeting import Together
from dreamportrait.training.watch import SLACK, Watch


class SharedBatch(DDPStrategy):
    """Lightning's processes without DDP's wrapper. All processes start with the weights of the first."""

    def __init__(self, together: Together, backend: str, patience: float) -> None:
        """together: how the processes met. patience: seconds that one of them may wait for another."""
        super().__init__(process_group_backend=backend, timeout=timedelta(seconds=patience + SLACK))
        self.together, self.patience = together, patience
        self.watch: Watch | None = None

    def setup_distributed(self) -> None:
        met = self.together
        if met.store is not None and not dist.is_initialized():
            dist.init_process_group(
                self._process_group_backend,
                store=dist.PrefixStore("group", met.store),
                rank=met.rank,
                world_size=met.world,
                timeout=self._timeout,
            )
        super().setup_distributed()  # makes the group of processes that Lightning itself has started
        store = dist.distributed_c10d._get_default_store()
        self.watch = Watch(store, dist.get_rank(), dist.get_world_size(), self.patience)
        self.watch.start()

    def configure_ddp(self) -> None:
        assert self.model is not None
        with torch.no_grad(), exchanges.waiting():
            for value in (*self.model.parameters(), *self.model.buffers()):
                dist.broadcast(value, 0)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        with exchanges.waiting():
            super().barrier(*args, **kwargs)

    def broadcast(self, *args: Any, **kwargs: Any) -> Any:
        with exchanges.waiting():
            return super().broadcast(*args, **kwargs)

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        with exchanges.waiting():
            return super().reduce(*args, **kwargs)

    def teardown(self) -> None:
        if self.watch is not None:
            self.watch.stop()
        super().teardown()

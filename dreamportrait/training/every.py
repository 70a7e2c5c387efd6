"""Callbacks that act every N images, and the module they act on: the interface between the loop and a system."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from dreamportrait.core.config import RunConfig
from dreamportrait.training.scaling import LossScale


class CountedModule(LightningModule):
    """A training module that counts the images it has seen. Each system derives its own from this class."""

    config: RunConfig
    images: int  # seen so far, by all processes together
    losses: dict[str, Tensor]  # of the newest step, unweighted
    measured: dict[str, float]  # the newest values of callbacks that measure
    scales: dict[str, LossScale]  # of the losses, by optimiser

    def scale_of(self, optimizer: Optimizer) -> LossScale:
        """Return the scale of the losses whose gradients an optimiser uses."""
        raise NotImplementedError


class Every(Callback):
    """A callback that acts after each step that completes another `images` images, and after the last step.

    A subclass that measures something puts it into `module.measured`; the log, which runs later, writes it.
    """

    def __init__(self, images: int) -> None:
        if images < 1:
            raise ValueError(f"{type(self).__name__}(images={images}): must be at least 1")
        self.images = images

    @property
    def state_key(self) -> str:
        return type(self).__name__

    def act(self, trainer: Trainer, module: Any) -> None:  # module: the system's own CountedModule
        raise NotImplementedError

    def is_due(self, module: CountedModule) -> bool:
        before = module.images - module.config.data.batch
        return module.images // self.images > before // self.images or module.images >= module.config.total_images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, CountedModule)
        if self.is_due(pl_module):
            self.act(trainer, pl_module)

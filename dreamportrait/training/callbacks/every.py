"""What happens now and then in a training run, counted in images. Metrics that are measured on the way are another."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dreamportrait.training.module import DreamPortraitModule


class Every(Callback):
    """Acts after each step that completes another so many images, and after the last one.

    What a subclass measures it puts into `module.measured`; the log, which comes after it, writes it.
    """

    def __init__(self, images: int) -> None:
        if images < 1:
            raise ValueError(f"{type(self).__name__}(images={images}): must be at least 1")
        self.images = images

    @property
    def state_key(self) -> str:
        return type(self).__name__

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        raise NotImplementedError

    def is_due(self, module: DreamPortraitModule) -> bool:
        before = module.images - module.config.data.batch
        return module.images // self.images > before // self.images or module.images >= module.config.total_images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DreamPortraitModule)
        if self.is_due(pl_module):
            self.act(trainer, pl_module)

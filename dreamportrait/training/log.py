"""A callback that writes losses, scores and speed to log.csv, to the terminal and to Lightning's loggers."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from dreamportrait.training.every import CountedModule, Every
from dreamportrait.training.table import Table


class Log(Every):
    """Write a line every `images` images, with the mean of each loss since the previous line.

    A loss that is not computed in every step is averaged over the steps that compute it. On a terminal, a progress bar
    counts images and shows the time left.
    """

    def __init__(self, images: int, folder: Path) -> None:
        super().__init__(images)
        self.path = folder / "log.csv"
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CountedModule)
        self.started, self.first = time.monotonic(), pl_module.images
        self.table = Table(self.path, "images", self.first) if trainer.is_global_zero else None
        total = pl_module.config.total_images
        hidden = None if trainer.is_global_zero else True  # None = hidden only if there is no terminal
        self.bar = tqdm(total=total, initial=self.first, unit=" images", disable=hidden, dynamic_ncols=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, CountedModule)
        for name, loss in pl_module.losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
            self.counts[name] = self.counts.get(name, 0) + 1
        self.bar.update(pl_module.config.data.batch)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def act(self, trainer: Trainer, module: CountedModule) -> None:
        values = self._means(trainer) | module.measured
        module.measured = {}
        pace = (module.images - self.first) / (time.monotonic() - self.started)  # images per second
        self.started, self.first = time.monotonic(), module.images
        hours = (module.config.total_images - module.images) / pace / 3600
        for logger in trainer.loggers:
            logger.log_metrics(values | {"images_per_second": pace}, step=module.images)
        if self.table is not None:
            stage = module.config.stage_at(module.images - module.config.data.batch).name
            row = {"images": str(module.images), "stage": stage, "images_per_second": f"{pace:.4g}"}
            self.table.add(row | {name: f"{value:.5g}" for name, value in values.items()})
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            left = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
            tqdm.write(
                f"{stage} {module.images}/{module.config.total_images} images  {shown}  "
                f"{pace:.3g} images/s, {left} left"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums for the next line, which a checkpoint keeps."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums, self.counts = dict(state_dict["sums"]), dict(state_dict["counts"])

    def _means(self, trainer: Trainer) -> dict[str, float]:
        """Return the mean of each loss over steps and processes. All processes have the same losses in a step."""
        names = list(self.sums)
        if not names:
            return {}
        device = trainer.strategy.root_device
        means = torch.stack([self.sums[name].to(device) / self.counts[name] for name in names])
        means = trainer.strategy.reduce(means, reduce_op="mean")
        self.sums, self.counts = {}, {}
        return dict(zip(names, means.tolist(), strict=True))

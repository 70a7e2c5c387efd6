"""A callback that stops the run before the first update with NaN or infinite values, and names the cause."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.data.dataset import Batch
from dreamportrait.training.every import CountedModule
from dreamportrait.training.states import save_state


class NonFiniteGuard(Callback):
    """Check losses and gradients before each update, so that the weights are still good when it raises.

    It waits for the device once per update. It saves the batch; latents and noise follow from the seed and the number
    of images seen.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batch: Batch | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batch = batch

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, CountedModule)
        found = dict(pl_module.losses)
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients:
                found[f"the gradient of the weights of {group['name']}"] = torch.nn.utils.get_total_norm(gradients)
        values = torch.stack([value.float() for value in found.values()]).tolist()
        bad = {name: value for name, value in zip(found, values, strict=True) if not math.isfinite(value)}
        if bad:
            self._stop(trainer, pl_module, bad)

    def _stop(self, trainer: Trainer, module: CountedModule, bad: dict[str, float]) -> None:
        images, config = module.images, module.config
        path = self.folder / f"nonfinite-{images:09d}-process{trainer.global_rank}.pt"
        if self.batch is not None:
            save_state(path, _plain(self.batch) | {"images": images, "seed": config.run.seed})
        where = f"step {images // config.data.batch + 1} (stage {config.stage_at(images).name}, {images} images)"
        what = ", ".join(f"{name} is {value}" for name, value in bad.items())
        remedy = "lower the learning rate and continue from the last checkpoint, with another run.name"
        raise NonFiniteLoss(f"{where}: {what}. The update was not applied; the batch is in {path}; {remedy}")


def _plain(batch: Batch) -> dict[str, Any]:
    """Return the batch as tensors and texts, which load without unpickling objects."""
    saved: dict[str, Any] = {"image": batch.image.cpu()}
    for name, conditions in (("real", batch.real), ("fake", batch.fake)):
        text = conditions.text
        features = {} if text is None else {"words": text.words.cpu(), "eot": text.eot.cpu(), "mask": text.mask.cpu()}
        saved[name] = {
            "camera": conditions.camera.cpu(),
            "prompts": conditions.prompts,
            "of_images": [words.image for words in conditions.words],
            **features,
        }
    return saved

"""A callback that looks for NaN and infinite values before each update, so that the weights stay good.

In float16, gradients overflow now and then: the update is left out, and the scale of the loss is halved. Everything
else, and too many such updates in a row, stops the run with a report that names the cause.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.core.processes import largest
from dreamportrait.data.dataset import Batch
from dreamportrait.training.every import CountedModule
from dreamportrait.training.scaling import LossScale
from dreamportrait.training.states import save_state

_log = logging.getLogger(__name__)


class NonFiniteGuard(Callback):
    """Check losses and gradients before each update. All processes come to the same decision.

    It waits for the device once per update. Its report saves the batch; latents and noise follow from the seed and the
    number of images seen.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batch: Batch | None = None  # None also where the step draws its batch from its seed
        self.good: set[str] = set()  # losses of this step that earlier updates were made with

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch if isinstance(batch, Batch) else None
        self.good.clear()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, CountedModule)
        losses = {name: loss for name, loss in pl_module.losses.items() if name not in self.good}
        bad = _not_finite(losses, optimizer)
        skip, scale = bool(largest(bool(bad))), pl_module.scale_of(optimizer)
        scale.adapt(not skip)
        if not skip:
            self.good.update(losses)
            return
        if not scale.dynamic or scale.in_a_row > pl_module.config.trainer.skip_limit:
            self._stop(trainer, pl_module, bad, scale)
        optimizer.zero_grad(set_to_none=True)  # Adam leaves weights without a gradient as they are
        for name in losses:  # the log's means are over updates that were made, in all processes
            del pl_module.losses[name]
        if bad:
            _log.warning(
                "%s: the update is left out, the %d. of this run; the scale of its loss is now %g",
                _where(pl_module, bad),
                scale.skipped,
                scale.value,
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Add the number of updates left out, and the smallest scale, to the next line of the log."""
        assert isinstance(pl_module, CountedModule)
        if scales := [scale for scale in pl_module.scales.values() if scale.dynamic]:
            pl_module.measured["skipped_updates"] = sum(scale.skipped for scale in scales)
            pl_module.measured["loss_scale"] = min(scale.value for scale in scales)

    def _stop(self, trainer: Trainer, module: CountedModule, bad: dict[str, float], scale: LossScale) -> None:
        images = module.images
        path = self.folder / f"nonfinite-{images:09d}-process{trainer.global_rank}.pt"
        drawn = {} if self.batch is None else _plain(self.batch)
        save_state(path, drawn | {"images": images, "seed": module.config.run.seed})
        kept = "The update was not applied"
        if scale.dynamic:
            kept = f"The last {scale.in_a_row} updates were not applied, more than trainer.skip_limit"
        remedy = "lower the learning rate and continue from the last checkpoint, with another run.name"
        raise NonFiniteLoss(f"{_where(module, bad)}. {kept}; the batch is in {path}; {remedy}")


def _not_finite(losses: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, float]:
    """Return the losses and the lengths of the optimiser's gradients that are NaN or infinite."""
    found = dict(losses)
    for group in optimizer.param_groups:
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        if gradients:
            found[f"the gradient of the weights of {group['name']}"] = torch.nn.utils.get_total_norm(gradients)
    values = torch.stack([value.float() for value in found.values()]).tolist() if found else []
    return {name: value for name, value in zip(found, values, strict=True) if not math.isfinite(value)}


def _where(module: CountedModule, bad: dict[str, float]) -> str:
    images, config = module.images, module.config
    where = f"step {images // config.data.batch + 1} (stage {config.stage_at(images).name}, {images} images)"
    what = (
        ", ".join(f"{name} is {value}" for name, value in bad.items()) or "another process has NaN or infinite values"
    )
    return f"{where}: {what}"


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

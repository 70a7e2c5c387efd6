"""Pretraining for Lightning's trainer, on several processes: the step of pretraining.py, counted in images.

Head k of a run is drawn from a seed of its own, made of the run's seed and k. A run that was stopped is therefore the
same as an uninterrupted one, to the bit, and two processes train like one, except for rounding.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dreamportrait.core.processes import average_over_processes
from dreamportrait.systems.freestyle.generator import PictureTo3D, plane_statistics
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.systems.freestyle.pretraining import (
    BETAS,
    average_beta,
    cameras_of,
    draw_ws,
    pairs_of,
    pretraining_losses,
)
from dreamportrait.systems.freestyle.run_config import FreestyleConfig
from dreamportrait.training.continuing import check_fits
from dreamportrait.training.every import CountedModule
from dreamportrait.training.loop import cosine, set_lr, step_seed
from dreamportrait.training.scaling import LossScale
from dreamportrait.training.schedule import Ema


class PretrainingModule(CountedModule):
    """H and its running average. The generator and the perceptual distance are held, not trained and not saved."""

    def __init__(self, styled: PictureTo3D, config: FreestyleConfig, perceptual: Perceptual | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config: FreestyleConfig = config
        self.i2t = styled.i2t.train()
        self.average = Ema(self.i2t)
        averaged = self.average.module.train()  # Lightning warns about modules in evaluation mode
        assert isinstance(averaged, ImageToTriplane)
        self.averaged = averaged
        self.images, self.losses, self.measured = 0, {}, {}
        self.scales = {"i2t": LossScale(dynamic=False)}
        self._held = styled, perceptual  # in a tuple, so that no network in it becomes a part of this module

    def training_step(self, batch: int, batch_idx: int) -> None:
        (styled, perceptual), s = self._held, self.config.settings()
        step, cameras = self.images // s.batch, None
        z, shares = self._draw(styled.generator.config.z_dim)
        pairs = pairs_of(styled.generator, z, s.truncation)
        if s.renders(step):
            cameras = cameras_of(styled.generator, shares, s.yaw, s.pitch).to(self.device)
        losses = pretraining_losses(styled, pairs, s, cameras, perceptual)
        torch.stack(list(losses.values())).sum().backward()
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        self._update(cosine(step, s.steps, s.lr, warmup=min(100, s.steps)))
        self.average.update(self.i2t, average_beta(step, s))
        self.images += s.batch

    def _draw(self, z_dim: int) -> tuple[Tensor, Tensor]:  # [N, z_dim], [N, 2]
        """Draw the latents and the angles of this process's part of the batch."""
        rank, world, found = self.trainer.global_rank, self.trainer.world_size, []
        for number in range(self.images + rank, self.images + self.config.data.batch, world):
            numbers = torch.Generator().manual_seed(step_seed(self.config.run.seed, number))
            found.append((torch.randn(z_dim, generator=numbers), torch.rand(2, generator=numbers)))
        z, shares = (torch.stack(parts) for parts in zip(*found, strict=True))
        return z, shares

    def _update(self, lr: float) -> None:
        optimizer: Any = self.optimizers()
        average_over_processes([p.grad for p in self.i2t.parameters() if p.grad is not None])
        set_lr(optimizer, lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def scale_of(self, optimizer: torch.optim.Optimizer) -> LossScale:
        return self.scales["i2t"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": list(self.i2t.parameters()), "name": "i2t"}]
        return torch.optim.Adam(groups, self.config.pretrain.lr, BETAS)

    def on_train_start(self) -> None:
        """Move the generator to the device, and measure its planes unless a checkpoint holds what was measured."""
        (styled, _), s = self._held, self.config.settings()
        generator = styled.generator.to(self.device)
        if not self.images:
            torch.manual_seed(s.seed)
            ws = draw_ws(generator, s.statistics, s.truncation)[:, 0]
            self.i2t.set_statistics(*plane_statistics(generator, ws, s.batch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images"], checkpoint["measured"] = self.images, dict(self.measured)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check(checkpoint)
        self.images, self.measured = int(checkpoint["images"]), dict(checkpoint["measured"])

    def check(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise ValueError if a checkpoint is of another training."""
        check_fits(checkpoint, self, [self.configure_optimizers()], self.config.data.batch)


class Draws:
    """The numbers of the batches of a run. The heads themselves are drawn in the training step."""

    workers = 0

    def __init__(self, batch: int, total: int) -> None:
        self.batch, self.total, self.images = batch, total, 0

    def __len__(self) -> int:
        return self.total // self.batch

    def __iter__(self) -> Iterator[int]:
        while self.images < len(self) * self.batch:
            self.images += self.batch
            yield self.images // self.batch - 1

    def state_dict(self) -> dict[str, int]:
        return {"images": self.images}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.images = state["images"]

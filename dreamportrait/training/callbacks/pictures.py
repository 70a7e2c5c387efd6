"""Sheets of portraits of fixed prompts, seeds and views, and whether a prompt still gives different portraits."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from torchvision.utils import save_image  # type: ignore[import-untyped]

from dreamportrait.metrics.diversity import color_difference
from dreamportrait.metrics.generation import frontal
from dreamportrait.text.encoder import TextFeatures
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.training.callbacks.every import Every
from dreamportrait.training.module import DreamPortraitModule

_log = logging.getLogger(__name__)


class Samples(Every):
    """samples/images-N.png, drawn by the average: a row per prompt, seeds from left to right, each in all views."""

    def __init__(
        self,
        images: int,
        folder: Path,
        prompts: Sequence[str],
        text: TextFeatures,  # of these prompts
        seeds: Sequence[int],
        views: Sequence[float],  # degrees from the front
        truncation: float,
    ) -> None:
        super().__init__(images)
        _check_text(prompts, text)
        self.folder, self.prompts, self.text = folder / "samples", prompts, text
        self.seeds, self.views, self.truncation = seeds, views, truncation

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        if not trainer.is_global_zero:
            return
        found = portraits(module.averaged, self.text, self.seeds, self.views, self.truncation)  # [P, S, V, 3, R, R]
        path = self.folder / f"images-{module.images:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in self.prompts), encoding="utf-8")
        columns = len(self.seeds) * len(self.views)
        save_image(found.flatten(0, 2), path, nrow=columns, padding=0, normalize=True, value_range=(-1, 1))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [str(path)], step=module.images)


class CollapseMonitor(Every):
    """Measures how much portraits of one prompt differ, and warns of prompts where that is below a threshold."""

    SEEDS = range(4)

    def __init__(self, images: int, prompts: Sequence[str], text: TextFeatures, below: float) -> None:
        super().__init__(images)
        _check_text(prompts, text)
        self.prompts, self.text, self.below = prompts, text, below

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        if not trainer.is_global_zero:
            return
        found = color_difference(portraits(module.averaged, self.text, self.SEEDS, [0.0], truncation=1.0)[:, :, 0])
        module.measured |= {"diversity": float(found.mean()), "diversity_least": float(found.min())}
        for prompt, value in zip(self.prompts, found.tolist(), strict=True):
            if value < self.below:
                _log.warning(
                    "after %d images, portraits of %r hardly differ: %.3g, below %.3g. Mode collapse: lower "
                    "loss.guidance_weight or guidance.scale, or raise loss.gan_weight",
                    *(module.images, prompt, value, self.below),
                )


@torch.no_grad()
def portraits(
    generator: PortraitGenerator, text: TextFeatures, seeds: Sequence[int], views: Sequence[float], truncation: float
) -> Tensor:  # [P, S, V, 3, R, R]
    """The same latents for every prompt; the identity is conditioned by the frontal camera."""
    device = next(generator.parameters()).device
    z = torch.cat([torch.randn(1, generator.config.z_dim, generator=_numbers(seed)) for seed in seeds]).to(device)
    front, *cameras = (frontal(generator, degrees).to(device).expand(len(z), -1) for degrees in (0.0, *views))
    rows = []
    for i in range(len(text.eot)):
        words, eot, mask = (x[i : i + 1].to(device).expand(len(z), *x.shape[1:]) for x in vars(text).values())
        asked = TextFeatures(words, eot, mask)
        ws = generator.map(z, front, asked, truncation)
        planes = generator.synthesize_planes(ws, asked)
        rows.append(torch.stack([generator.render(planes, camera, w=ws).image for camera in cameras], 1))
    return torch.stack(rows).float()


def _numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_text(prompts: Sequence[str], text: TextFeatures) -> None:
    if not prompts or len(prompts) != len(text.eot):
        raise ValueError(f"{len(prompts)} prompts, features of {len(text.eot)}: give features for each, at least one")

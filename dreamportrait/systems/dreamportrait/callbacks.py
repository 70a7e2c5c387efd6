"""The callbacks of a training run: sample sheets, a monitor for mode collapse, and scores during training."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from torchvision.utils import save_image  # type: ignore[import-untyped]

from dreamportrait.core.files import replacing, write_text
from dreamportrait.data.dataset import Pictures
from dreamportrait.metrics.diversity import color_difference
from dreamportrait.metrics.extractors import Extractor
from dreamportrait.metrics.oracle import Oracle
from dreamportrait.metrics.scores import Protocol, check, evaluate
from dreamportrait.metrics.statistics import RealStatistics
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator, TextTo3D
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import PromptEncoder, TextFeatures
from dreamportrait.training.checkpoints import Checkpoints
from dreamportrait.training.every import Every
from dreamportrait.training.guard import NonFiniteGuard
from dreamportrait.training.log import Log


def make_callbacks(
    config: Config,
    text: TextFeatures | None,  # of samples.prompts. None = no prompts are configured
    metrics: tuple[Every, ...] = (),
) -> list[Callback]:
    """Make the callbacks in the order they act: first measurements, then the log, then checkpoints."""
    folder: Path = config.folder
    samples, every = config.samples, config.trainer
    callbacks: list[Callback] = [NonFiniteGuard(folder)]
    if config.guidance.kind == "dmd":
        callbacks.append(TextSensitivityMonitor())
    if text is not None and every.sample_every_images:
        images = every.sample_every_images
        callbacks += [
            SampleSheets(
                images,
                folder,
                prompts=samples.prompts,
                text=text,
                seeds=samples.seeds,
                views=samples.views,
                truncation=samples.truncation,
            ),
            CollapseMonitor(images, samples.prompts, text, below=samples.collapse_below),
        ]
    return [
        *(*callbacks, *metrics),
        Log(every.log_every_images, folder),
        Checkpoints(every.save_every_images, folder, every.keep),
    ]


_log = logging.getLogger(__name__)


class SampleSheets(Every):
    """Draw samples/images-N.png with the running average: a row per prompt; in it all views of each seed."""

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
        write_text(self.folder / "prompts.txt", "".join(f"{prompt}\n" for prompt in self.prompts))
        columns = len(self.seeds) * len(self.views)
        with replacing(path) as unfinished:
            save_image(found.flatten(0, 2), unfinished, nrow=columns, padding=0, normalize=True, value_range=(-1, 1))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [str(path)], step=module.images)


class CollapseMonitor(Every):
    """Measure how much portraits of one prompt differ, and warn if the difference is below a threshold."""

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
                    module.images,
                    prompt,
                    value,
                    self.below,
                )


class TextSensitivityMonitor(Callback):
    """Warn when prompts change the prediction of the fake score much less than that of the frozen model."""

    LEAST = 0.5

    def __init__(self) -> None:
        self.warned = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, DreamPortraitModule)
        value = pl_module.losses.get("text_sensitivity")
        if value is None or not trainer.is_global_zero:
            return
        below = float(value) < self.LEAST
        if below and not self.warned:
            _log.warning(
                "after %d images, a prompt changes the prediction of the fake score %.2g times as much as that of the "
                "frozen model, below %g. The generator does not follow the text yet, or the fake score forgets it. If "
                "this stays: raise fake.updates or fake.warmup_images, or lower optim.lr_mapper",
                pl_module.images,
                float(value),
                self.LEAST,
            )
        self.warned = below


@torch.no_grad()
def portraits(
    generator: PortraitGenerator, text: TextFeatures, seeds: Sequence[int], views: Sequence[float], truncation: float
) -> Tensor:  # [P, S, V, 3, R, R]
    """Render every prompt with the same latents, from each view (degrees to the right of the front)."""
    z = torch.cat([torch.randn(1, generator.config.z_dim, generator=_numbers(seed)) for seed in seeds])
    cameras = generator.config.around(views)
    rows = []
    for i in range(len(text.eot)):
        words, eot, mask = (x[i : i + 1].expand(len(z), *x.shape[1:]) for x in (text.words, text.eot, text.mask))
        heads = generator.portray(z, TextFeatures(words, eot, mask), truncation)
        rows.append(torch.stack([each.colors for each in heads.views(cameras)]))
    return torch.stack(rows)


def _numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_text(prompts: Sequence[str], text: TextFeatures) -> None:
    if not prompts or len(prompts) != len(text.eot):
        raise ValueError(f"{len(prompts)} prompts, features of {len(text.eot)}: give features for each, at least one")


class Metrics(Every):
    """Measure with the function of `dreamportrait evaluate`, in all processes together.

    Training draws the same random numbers with and without it.
    """

    def __init__(
        self,
        images: int,
        generator: PortraitGenerator,  # only checked for its size; act() measures the running average
        text: PromptEncoder,
        pictures: Pictures,
        judge: ClipScorer,
        extractor: Extractor,
        protocol: Protocol,
        oracle: Oracle | None,
        real: RealStatistics,
    ) -> None:
        super().__init__(images)
        check(TextTo3D(generator, text), pictures, protocol)
        self.text = text
        self.given = pictures, judge, extractor, protocol, oracle, real

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        module.measured |= evaluate(TextTo3D(module.averaged, self.text), *self.given).numbers()

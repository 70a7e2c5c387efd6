"""What accompanies a training run. All of it counts images, as the module does."""

from pathlib import Path

from lightning.pytorch import Callback

from dreamportrait.config import Config
from dreamportrait.text.encoder import TextFeatures
from dreamportrait.training.callbacks.checkpoints import Checkpoints, newest_checkpoint
from dreamportrait.training.callbacks.every import Every
from dreamportrait.training.callbacks.guard import NonFiniteGuard
from dreamportrait.training.callbacks.log import Log
from dreamportrait.training.callbacks.pictures import CollapseMonitor, Samples

__all__ = [
    "Checkpoints",
    "CollapseMonitor",
    "Every",
    "Log",
    "NonFiniteGuard",
    "Samples",
    "make_callbacks",
    "newest_checkpoint",
]


def make_callbacks(
    config: Config,
    text: TextFeatures | None,  # of samples.prompts. None = there are none
    metrics: tuple[Every, ...] = (),
) -> list[Callback]:
    """In the order they act in: what measures, then the log, then the checkpoint, which holds what the log gathers."""
    folder: Path = config.folder
    samples, every = config.samples, config.trainer
    callbacks: list[Callback] = [NonFiniteGuard(folder)]
    if text is not None and every.sample_every_images:
        sheet = samples.prompts, text, samples.seeds, samples.views, samples.truncation
        callbacks.append(Samples(every.sample_every_images, folder, *sheet))
        callbacks.append(CollapseMonitor(every.sample_every_images, samples.prompts, text, samples.collapse_below))
    return [
        *(*callbacks, *metrics),
        Log(every.log_every_images, folder),
        Checkpoints(every.save_every_images, folder, every.keep),
    ]

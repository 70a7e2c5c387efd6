"""Warm-up of the fake score: before the first guided step it learns from a bank of latents of the resting generator."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dreamportrait.guidance.fake_score import Fakes, draw_lesson
from dreamportrait.systems.dreamportrait.step_settings import StepSettings
from dreamportrait.training.loop import step_seed


class Training(Protocol):
    """What the warm-up needs of the module that is trained."""

    config: Any
    fake_score: Any
    matching: Any
    trainer: Any
    images: Any

    def split(self, batch: Any, count: int) -> Sequence[Any]: ...

    def draw_identities(self, part: Any, now: StepSettings) -> Any: ...

    def portray(self, identity: Any, asked: Any) -> Any: ...

    def backpropagate(self, name: str, loss: torch.Tensor) -> None: ...

    def update(self, name: str) -> None: ...


def warm_up(module: Training, now: StepSettings) -> None:
    """Warm the fake score of a training up, unless it is warm already.

    The bank is made for the prompts and cameras of the next batches. It is not saved: a run that is stopped here makes
    it again. Every part of a batch has its own bank and its own draws, as in a training step.
    """
    score, fake = module.fake_score, module.config.fake
    assert score is not None
    if score.warm or not fake.warmup_images:
        return
    batch, parts = module.config.data.batch, now.stage.accumulate
    count = -(-min(fake.bank, fake.warmup_images) // batch)  # batches in the bank
    banks = _banks(module, count, now)
    for update in range(fake.warmup_images // batch):
        for i, bank in enumerate(banks):
            _seed(module, count + update, i)
            some = bank.some(batch // (module.trainer.world_size * parts))
            loss = score.loss(some, draw_lesson(score.prior, len(some.latents)))
            module.backpropagate("fake_score", loss / parts)
        module.update("fake_score")
    score.warm.fill_(1)


@torch.no_grad()
def _banks(module: Training, count: int, now: StepSettings) -> list[Fakes]:
    """Return latents for the next `count` batches, separately for each part of a batch."""
    assert module.matching is not None
    loader: Any = copy.copy(module.trainer.train_dataloader)  # a copy: the run itself does not skip these batches
    loader.load_state_dict({"images": module.images})
    loader.workers, loader.total = 0, module.images + count * module.config.data.batch  # whatever the run's length is
    found: list[list[Fakes]] = [[] for _ in range(now.stage.accumulate)]
    for k, batch in enumerate(loader):
        moved = module.trainer.strategy.batch_to_device(batch)
        for i, part in enumerate(module.split(moved, now.stage.accumulate)):
            _seed(module, k, i)
            _, fake = module.portray(module.draw_identities(part, now), part.fake)
            found[i].append(module.matching.fakes(fake.image, part.fake.prompts, part.fake.camera))
    return [Fakes(*(torch.cat(values) for values in zip(*bank, strict=True))) for bank in found]


def _seed(module: Training, update: int, index: int) -> None:
    """Seed torch like a part of a training step, with numbers that no training step uses."""
    first = update * module.config.data.batch + module.trainer.global_rank + index * module.trainer.world_size
    torch.manual_seed(step_seed(module.config.run.seed, -1 - first))

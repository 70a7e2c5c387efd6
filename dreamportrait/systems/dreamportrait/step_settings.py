"""The settings of one training step, as a function of the configuration and the number of images seen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from dreamportrait.core.config import Stage
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.training.schedule import (
    DISCRIMINATOR_ADAM,
    GENERATOR_ADAM,
    AdamSettings,
    blur_sigma,
    swap_probability,
)

MONITOR_EVERY = 16  # steps


@dataclass(frozen=True)
class StepSettings:
    stage: Stage
    guided: bool  # whether the guidance loss is used
    sigma: float  # width of the blur before the discriminator, pixels
    swap: float | None  # probability of conditioning on another sample's camera. None = no conditioning
    stage_begins: bool
    weighed: bool  # whether the gradients of the losses at the pictures are measured
    density_due: bool
    r1_due: bool
    taught: bool  # whether the fake score is updated
    monitored: bool  # whether the fake score is compared with the frozen model


def step_settings(config: Config, images: int) -> StepSettings:
    """Return the settings of the training step that starts after `images` images."""
    loss, stage, step = config.loss, config.stage_at(images), images // config.data.batch
    begins, every = images in (0, *config.stage_ends()[:-1]), loss.balance_every_images
    taught = stage.guidance and config.guidance.kind == "dmd"
    return StepSettings(
        stage,
        guided=stage.guidance and config.guidance.kind != "none",
        sigma=blur_sigma(images, loss.blur_fade_images, loss.blur_start),
        swap=swap_probability(images, loss.swap_probability, loss.swap_fade_images),
        stage_begins=begins,
        weighed=begins or (every > 0 and images // every > (images - config.data.batch) // every),
        density_due=loss.density_weight > 0 and step % loss.density_every == 0,
        r1_due=loss.r1_gamma > 0 and step % loss.r1_every == 0,
        taught=taught,
        monitored=taught and step % MONITOR_EVERY == 0,
    )


def adam_settings(config: Config) -> dict[str, AdamSettings]:
    """Return Adam's settings for each parameter group.

    They are not corrected for lazy regularisation as EG3D's are: there, a regulariser has an update of its own, and
    here it shares the update of the main loss.
    """
    optim = config.optim

    def at(base: AdamSettings, lr: float) -> AdamSettings:
        return AdamSettings(lr, base.betas, base.eps)

    return {
        "generator": at(GENERATOR_ADAM, optim.lr_generator),
        "mapper": at(GENERATOR_ADAM, optim.lr_mapper),
        "adapters": at(GENERATOR_ADAM, optim.lr_adapters),
        "discriminator": at(DISCRIMINATOR_ADAM, optim.lr_discriminator),
        "fake_score": AdamSettings(config.fake.lr, (0.9, 0.999)),
        "pair_critic": AdamSettings(optim.lr_pair_critic, (0.0, 0.99)),
    }


def make_optimizers(
    groups: Mapping[str, Sequence[nn.Parameter]],  # weights by group
    optimizers: Iterable[Sequence[str]],  # the groups of each optimiser
    config: Config,
) -> list[torch.optim.Optimizer]:
    """Make an Adam for the groups of each optimiser that have weights to train."""
    moving = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
    settings = adam_settings(config)
    return [
        torch.optim.Adam(
            [{"params": moving[name], "name": name} | asdict(settings[name]) for name in names if moving[name]]
        )
        for names in optimizers
        if any(moving[name] for name in names)
    ]

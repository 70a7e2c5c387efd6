"""The settings of one training step, as a function of the configuration and the number of images seen."""

from dataclasses import dataclass

from dreamportrait.core.config import Stage
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.training.schedule import (
    DISCRIMINATOR_ADAM,
    GENERATOR_ADAM,
    AdamSettings,
    blur_sigma,
    lazy,
    swap_probability,
)

MONITOR_EVERY = 16  # steps


@dataclass(frozen=True)
class StepSettings:
    stage: Stage
    guided: bool  # whether the guidance loss is used
    sigma: float  # width of the blur before the discriminator, pixels
    swap: float | None  # probability of conditioning on another sample's camera. None = no conditioning
    density_due: bool
    r1_due: bool
    taught: bool  # whether the fake score is updated
    monitored: bool  # whether the fake score is compared with the frozen model


def step_settings(config: Config, images: int) -> StepSettings:
    """Return the settings of the training step that starts after `images` images."""
    loss, stage, step = config.loss, config.stage_at(images), images // config.data.batch
    taught = stage.guidance and config.guidance.kind == "dmd"
    return StepSettings(
        stage,
        guided=stage.guidance and config.guidance.kind != "none",
        sigma=blur_sigma(images, loss.blur_fade_images, loss.blur_start),
        swap=swap_probability(images, loss.swap_probability, loss.swap_fade_images),
        density_due=loss.density_weight > 0 and step % loss.density_every == 0,
        r1_due=loss.r1_gamma > 0 and step % loss.r1_every == 0,
        taught=taught,
        monitored=taught and step % MONITOR_EVERY == 0,
    )


def adam_settings(config: Config) -> dict[str, AdamSettings]:
    """Return Adam's settings for each parameter group, corrected for lazy regularisation where it is used."""
    loss, optim = config.loss, config.optim

    def settings(base: AdamSettings, lr: float, weight: float, every: int) -> AdamSettings:
        chosen = AdamSettings(lr, base.betas, base.eps)
        return lazy(chosen, every) if weight > 0 else chosen

    density, r1 = (loss.density_weight, loss.density_every), (loss.r1_gamma, loss.r1_every)
    return {
        "generator": settings(GENERATOR_ADAM, optim.lr_generator, *density),
        "mapper": settings(GENERATOR_ADAM, optim.lr_mapper, *density),
        "adapters": settings(GENERATOR_ADAM, optim.lr_adapters, *density),
        "discriminator": settings(DISCRIMINATOR_ADAM, optim.lr_discriminator, *r1),
        "fake_score": AdamSettings(config.fake.lr, (0.9, 0.999)),
    }

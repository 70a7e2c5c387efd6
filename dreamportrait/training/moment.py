"""What holds at a step, as a function of the configuration and the images seen so far."""

from dataclasses import dataclass

from dreamportrait.config import Config, Stage
from dreamportrait.training.schedules import (
    DISCRIMINATOR_ADAM,
    GENERATOR_ADAM,
    AdamSettings,
    blur_sigma,
    lazy,
    swap_probability,
)


@dataclass(frozen=True)
class Moment:
    stage: Stage
    guided: bool  # whether text guides
    sigma: float  # of the blur through which the discriminator looks
    swap: float | None  # how often another camera conditions the identity. None = no conditioning
    density_due: bool
    r1_due: bool


def moment(config: Config, images: int) -> Moment:
    """Of the step that starts after that many images. A regulariser comes every so many steps, from the first on."""
    loss, stage, step = config.loss, config.stage_at(images), images // config.data.batch
    return Moment(
        stage,
        guided=stage.guidance and config.guidance.kind != "none",
        sigma=blur_sigma(images, loss.blur_fade_images, loss.blur_start),
        swap=swap_probability(images, loss.swap_probability, loss.swap_fade_images),
        density_due=loss.density_weight > 0 and step % loss.density_every == 0,
        r1_due=loss.r1_gamma > 0 and step % loss.r1_every == 0,
    )


def stage_ends(config: Config) -> list[int]:
    """Images after which each stage is over."""
    ends, images = [], 0
    for stage in config.stages:
        images += stage.images
        ends.append(images)
    return ends


def adam_settings(config: Config) -> dict[str, AdamSettings]:
    """By parameter group. Where a regulariser takes its steps too, rates and betas make up for it."""
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
    }

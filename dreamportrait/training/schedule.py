"""Schedules as functions of the number of images seen, and the running average of the weights (EMA).

The numbers are those of EG3D.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BLUR_START = 10.0  # pixels


def blur_fade(batch: int) -> float:
    """Return the number of images until the blur is gone: 6250 batches."""
    return batch * 200_000 / 32


def blur_sigma(images: float, fade: float, start: float = BLUR_START) -> float:
    """Return the width of the blur before the discriminator. For pretrained networks, start=0 turns the blur off."""
    return start * (1 - _progress(images, fade))


def swap_probability(images: float, final: float | None, fade: float) -> float | None:
    """Return the probability that the mapping gets a neighbour's camera. None = trained without conditioning."""
    if final is None:
        return None
    progress = _progress(images, fade)
    return (1 - progress) + final * progress


def raw_resolution(images: float, first: int, final: int | None, fade: float) -> int:
    """Return the resolution of rendered images, before super-resolution. final=None: it stays at `first`."""
    if final is None:
        return first
    progress = _progress(images, fade)
    return round(first * (1 - progress) + final * progress)


def ema_beta(images: float, batch: int, half: float | None = None, rampup: float | None = 0.05) -> float:
    """Return beta of the running average. `images` are those seen before the batch.

    half: images after which a weight's share has halved. None = 10 000 per 32 images of a batch, as published.
    rampup: `half` is at most this share of `images`. None = no such limit, for pretrained networks.
    """
    half = batch * 10_000 / 32 if half is None else half
    return half_life(batch, half if rampup is None else min(half, images * rampup))


@dataclass(frozen=True)
class AdamSettings:
    lr: float
    betas: tuple[float, float]
    eps: float = 1e-8


GENERATOR_ADAM = AdamSettings(0.0025, (0.0, 0.99))
DISCRIMINATOR_ADAM = AdamSettings(0.002, (0.0, 0.99))


def lazy(settings: AdamSettings, interval: int) -> AdamSettings:
    """Correct the settings of an optimiser that makes an extra update for a regulariser every `interval` steps.

    interval + 1 updates then have the learning rate and decay of `interval` updates with the given settings.
    """
    if interval < 1:
        raise ValueError(f"interval={interval}: steps from one regularisation to the next, must be at least 1")
    ratio = interval / (interval + 1)
    first, second = settings.betas
    return AdamSettings(settings.lr * ratio, (first**ratio, second**ratio), settings.eps)


def _progress(images: float, fade: float) -> float:
    """Return the progress of a fade: 0 at the start, 1 from `fade` images on. With fade=0 it is always 1."""
    return min(images / fade, 1.0) if fade > 0 else 1.0


class Ema:
    """A running average of the weights of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, beta: float) -> None:
        """Set the average to beta * average + (1 - beta) * weights, and copy the buffers."""
        for average, weight in zip(self.module.parameters(), source.parameters(), strict=True):
            average.copy_(weight.lerp(average, beta))
        for kept, value in zip(self.module.buffers(), source.buffers(), strict=True):
            kept.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return self.module.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.module.load_state_dict(state_dict)


def half_life(batch: int, images: float) -> float:
    """Return the beta with which a weight's share halves after `images` images."""
    return float(0.5 ** (batch / max(images, 1e-8)))

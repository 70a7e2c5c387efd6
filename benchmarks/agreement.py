"""Compare the losses of the official training step and ours, with the same weights, pictures, latents and cameras.

The two draw random numbers in different shapes. Here every uniform draw is 0.5, the only value that both can be made to
use, and normal draws of equal shape are equal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.official import Training
from dreamportrait.data.dataset import Batch
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule

# Official name of a loss -> our name.
REPORTED = {"Loss/G/loss": "generator", "Loss/D/loss": "discriminator", "Loss/r1_penalty": "r1"}
_randn = torch.randn


def _half(*shape: Any, **options: Any) -> Tensor:
    return torch.full(_size(shape), 0.5, device=options.get("device"))


def _normal(*shape: Any, **options: Any) -> Tensor:
    return _randn(_size(shape), generator=torch.Generator().manual_seed(3)).to(options.get("device"))


def _size(shape: tuple[Any, ...]) -> list[int]:
    return list(shape[0] if shape and not isinstance(shape[0], int) else shape)


@contextmanager
def same_draws() -> Iterator[None]:
    """Replace random draws by fixed numbers within the context."""
    with (
        mock.patch("torch.rand", _half),
        mock.patch("torch.rand_like", lambda x, **_: torch.full_like(x, 0.5)),
        mock.patch("torch.randn", _normal),
        mock.patch("torch.randn_like", lambda x, **_: _normal(*x.shape, device=x.device)),
    ):
        yield


def official_losses(loop: Training, batch: Batch) -> dict[str, float]:
    """Return the losses of an official step in which all phases are due. No weight changes."""
    found: dict[str, list[Tensor]] = {}
    smooth = torch.nn.functional.l1_loss

    def report(name: str, value: Tensor) -> Tensor:
        if name in REPORTED:
            found.setdefault(REPORTED[name], []).append(value.detach().mean())
        return value

    def l1_loss(here: Tensor, there: Tensor) -> Tensor:  # only the density regulariser calls it
        loss = smooth(here, there)
        found["density"] = [loss.detach()]
        return loss

    with (
        same_draws(),
        mock.patch("training.loss.training_stats.report", report),
        mock.patch("torch.nn.functional.l1_loss", l1_loss),
    ):
        for name, module, every in loop.due(0):
            module.requires_grad_(True)
            loop.accumulate(name, batch, every, 0)
            module.requires_grad_(False)
            module.zero_grad(set_to_none=True)
    return {name: float(values[0]) for name, values in found.items()}


def our_losses(module: DreamPortraitModule, batch: Batch) -> dict[str, float]:
    """Take a step in which all regularisers are due and return its losses."""
    module.images = 0
    with same_draws():
        module.training_step(batch, 0)
    return {name: float(loss) for name, loss in module.losses.items()}


def relative_difference(theirs: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """Return the difference of each loss, relative to the official value."""
    return {name: abs(ours[name] - value) / abs(value) for name, value in theirs.items()}

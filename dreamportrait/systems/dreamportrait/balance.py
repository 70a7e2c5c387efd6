"""The balance of the two losses that act on pictures: the adversarial loss and the guidance.

The weights of two losses do not say which one is stronger. The guidance loss sums over the elements of a latent, so its
gradient grows with the latent, with guidance.scale and with the resolution that the VAE reads; the adversarial loss is
a mean of logits. What moves the generator is the gradient at its picture. Its length is measured for each loss at the
start of every stage and every loss.balance_every_images, on the pictures of the step that follows, and logged:

    gan_gradient, guidance_gradient    mean length of the gradient at a picture, without the weights
    guidance_ratio                     the second divided by the first, with the weights
    guidance_weight                    the weight in force

loss.guidance_ratio asks for a ratio; guidance_weight then follows from the lengths. The other losses do not act on
pictures: keep acts on w, density on the planes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.systems.dreamportrait.config import Loss

GAN, GUIDANCE = "gan", "guidance"
MEMORY = 10  # measurements that the running mean goes back


def gradient_lengths(image: Tensor, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:  # [N, 3, R, R]; [] each
    """Return the mean length of each loss's gradient at one picture. The losses are means over the pictures."""
    found = {}
    for name, loss in losses.items():
        (slope,) = torch.autograd.grad(loss, image, retain_graph=True)
        found[name] = len(image) * slope.float().flatten(1).norm(dim=1).mean()
    return found


class Balance:
    """Running means of the gradients' lengths, and the weight of the guidance that follows from them."""

    def __init__(self, settings: Loss) -> None:
        self.settings = settings
        self.lengths: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def knows(self, guided: bool) -> bool:
        """Return whether everything has been measured that a step needs."""
        return GAN in self.lengths and (GUIDANCE in self.lengths or not guided)

    def start(self) -> None:
        """Forget the measurements of the previous stage."""
        self.lengths, self.counts = {}, {}

    def add(self, found: Mapping[str, float]) -> None:
        """Add a measurement. Values that are not finite are left out: a step in float16 may overflow."""
        for name, value in found.items():
            if not math.isfinite(value):
                continue
            count = self.counts.get(name, 0) + 1
            before = self.lengths.get(name, value)
            self.lengths[name] = before + (value - before) / min(count, MEMORY)
            self.counts[name] = count

    @property
    def guidance_weight(self) -> float:
        s = self.settings
        if s.guidance_ratio is None:
            return s.guidance_weight
        gan, guidance = self.lengths.get(GAN, 0.0), self.lengths.get(GUIDANCE, 0.0)
        if not (gan > 0 and guidance > 0):
            raise NonFiniteLoss(
                f"loss.guidance_ratio={s.guidance_ratio} cannot be kept: the gradients at the pictures have the "
                f"lengths {gan} (GAN) and {guidance} (guidance), and both must be above 0 and finite; give "
                "loss.guidance_weight instead, or a higher trainer.precision"
            )
        return s.guidance_ratio * s.gan_weight * gan / guidance

    def report(self) -> dict[str, float]:
        """Return the values for the log."""
        found = {f"{name}_gradient": length for name, length in self.lengths.items()}
        if self.lengths.get(GUIDANCE) and (gan := self.settings.gan_weight * self.lengths.get(GAN, 0.0)):
            weight = self.guidance_weight
            found |= {"guidance_weight": weight, "guidance_ratio": weight * self.lengths[GUIDANCE] / gan}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"lengths": dict(self.lengths), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.lengths, self.counts = dict(state["lengths"]), dict(state["counts"])

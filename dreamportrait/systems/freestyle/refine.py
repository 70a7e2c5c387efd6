"""Refinement of a styled head: its planes follow the front that H read, for a few steps.

H knows the styles that it was tuned on. Of another one it sees the colours at best, and what stands out from a head,
such as an elf's ears, comes out as a stump. The front shows both, and planes follow it in a few steps of Adam, because
each of their numbers takes full steps whatever its gradient. The change is smooth (smooth.py), so that the sides, which
no picture shows, follow without spikes. There is no network to train.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.freestyle.smooth import coarse, enlarged
from eg3d_ops._checks import check_int, check_number

BETAS = (0.5, 0.9)  # of Adam: short memories for few steps
MOST_STEPS = 1000


@dataclass(frozen=True)
class Refinement:
    """Settings of a refinement. They were chosen on generated faces that no score is reported of."""

    steps: int = 12  # 0 = none: the head is what one pass of H makes
    lr: float = 0.15  # in units of the deviation of the planes' channels
    stride: int = 2  # positions of the planes, along each side, that share a number

    def __post_init__(self) -> None:
        for name, least, most in (("steps", 0, MOST_STEPS), ("stride", 1, 64)):
            if check_int(name, getattr(self, name), least) > most:
                raise ValueError(f"{name}={getattr(self, name)}: at most {most}")
        if check_number("lr", self.lr) <= 0:
            raise ValueError(f"lr={self.lr}: must be positive")


REFINEMENT = Refinement()


@torch.enable_grad()
def refine(heads: Planes, front: Tensor, deviation: Tensor, how: Refinement = REFINEMENT) -> Planes:
    """Return heads whose planes follow their fronts [N, 3, R, R].

    deviation: [P, C, 1, 1] of the channels, as H stores it. The heads that are given stay as they are. Raises
    NonFiniteLoss if the error is not finite.
    """
    if not how.steps:
        return heads
    generator, planes = heads.generator, heads.planes.detach()
    n, parts, channels, resolution, _ = planes.shape
    side = coarse(resolution, how.stride)
    change = planes.new_zeros((n * parts, channels, side, side), requires_grad=True)
    optimizer = torch.optim.Adam([change], how.lr, BETAS)
    camera = generator.config.around([0.0]).to(planes).expand(n, -1)

    def changed() -> Tensor:  # [N, P, C, H, W]
        return planes + deviation * enlarged(change, resolution).unflatten(0, (n, parts))

    for step in range(how.steps):
        seen = generator.render(changed(), camera, w=heads.ws).image
        error = (seen - front).abs().mean((1, 2, 3)).sum()  # a sum over heads, so that they do not depend on each other
        if not error.isfinite():
            raise NonFiniteLoss(
                f"the error of a refined head is {error.item()} at step {step + 1}; it must be finite: "
                "refine by 0 steps (--refine 0)"
            )
        (change.grad,) = torch.autograd.grad(error, change)
        optimizer.step()
    return Planes(generator, changed().detach(), heads.ws)

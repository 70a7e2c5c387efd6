"""How long a training takes: from figures that others measured, scaled by arithmetic, or from a probe on this machine.

Recorded: the paper's hours on 8 V100 (appendix A), which are those of the authors' code; ours has not been measured on
a GPU. A configuration whose step has more or less arithmetic than celebatext_hq_paper.yaml gets proportionally more or
less time. An A100 is taken as 1.7 times a V100: StyleGAN3-R at 128 x 128 takes 58.4 and 34.2 seconds for 1000 images
(its docs/configs.md).
"""

import time
from typing import NamedTuple

import torch


class Paper(NamedTuple):
    """A stage of the paper's training, and the arithmetic of our step for it."""

    images: int
    hours: float
    gpus: int
    flops: float  # for one picture of celebatext_hq_paper.yaml: `dreamportrait estimate` prints it

    @property
    def seconds(self) -> float:
        """Return the seconds of one GPU for one picture."""
        return 3600 * self.hours * self.gpus / self.images


# Both stages reach 5 TFLOP/s of a V100, for the part that they share and for what guidance adds: 5.0 and 4.9.
ADAPT = Paper(500_000, 8, 8, 2.306e12)
ALIGN = Paper(1_000_000, 48, 8, 6.818e12)
FASTER = {"v100": 1.0, "a100": 58.4 / 34.2}


def recorded_seconds(plain: float, guided: float | None, gpu: str) -> float:
    """Return the seconds of one GPU for one picture, given the arithmetic of a step without and with guidance."""
    took = ADAPT.seconds * plain / ADAPT.flops
    if guided is not None:
        took += (ALIGN.seconds - ADAPT.seconds) * (guided - plain) / (ALIGN.flops - ADAPT.flops)
    return took / FASTER[gpu]


def render_rate(gpu: str) -> float:
    """Return the arithmetic in a second that the paper's first stage reached, for work without guidance."""
    return ADAPT.flops / ADAPT.seconds * FASTER[gpu]


def cpu_rate(width: int = 512, trial: float = 0.3) -> float:
    """Return the arithmetic in a second of products of matrices on this machine's processor, as small networks use."""
    a, b = torch.ones(width, width), torch.ones(width, width)
    a @ b
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < trial:
        a @ b
        done += 1
    return 2 * width**3 * done / passed

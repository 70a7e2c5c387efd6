"""Memory of one process of a training, by part, and what fits into GPUs of common sizes."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.cost.outline import Outline, moving
from dreamportrait.systems.dreamportrait.cost.shapes import Step
from dreamportrait.systems.dreamportrait.mapper import PriorMapper

GIB = 2**30
SIZES = (16, 24, 32, 40, 80)  # GB of V100, RTX 3090 or 4090, V100, A100, A100 or H100
# What a process needs beside its tensors: the CUDA context, workspaces of cuDNN, and memory that the allocator cannot
# reuse. Assumed, not measured: no GPU was at hand. --probe measures the tensors and the allocator.
CONTEXT, WASTE = 1.0 * GIB, 0.1


class Part(NamedTuple):
    name: str
    size: float  # bytes


@dataclass(frozen=True)
class Memory:
    """Memory of one process: parts that stay, and the peak of a step as a line in the pictures at a time."""

    parts: tuple[Part, ...]
    base: float  # bytes
    each: float  # bytes of each picture

    @property
    def held(self) -> float:
        return sum(part.size for part in self.parts)

    def total(self, batch: int) -> float:
        return CONTEXT + (1 + WASTE) * (self.held + self.step(batch))

    def step(self, batch: int) -> float:
        return self.base + self.each * batch

    def largest(self, share: int, gigabytes: float, group: int) -> int | None:
        """Return the most pictures at a time that divide a process's share, are whole groups, and fit. None = none."""
        group = min(group, share)
        fitting = [n for n in range(group, share + 1) if share % n == 0 and n % group == 0]
        return max((n for n in fitting if self.total(n) <= gigabytes * GIB), default=None)


def memory(config: Config, made: Outline, first: Step, second: Step) -> Memory:
    """Return the memory of a process. first, second: steps with different numbers of pictures, regularisers due."""
    peaks = [max(step.peaks.values()) for step in (first, second)]
    each = (peaks[1] - peaks[0]) / (second.batch - first.batch)
    return Memory(_held(config, made), peaks[0] - each * first.batch, each)


def _held(config: Config, made: Outline) -> tuple[Part, ...]:
    portrait = made.portrait
    parts = [
        Part("generator, mapper and adapters", size(portrait)),
        Part("their running average", size(portrait)),
        Part("discriminator", size(made.critic)),
        Part("Adam's two moments", 2 * 4 * moving(config, made)),
    ]
    if isinstance(portrait.mapper, PriorMapper):
        parts.append(Part("the mapper as the prior left it", size(portrait.mapper)))
    if made.unet is not None and made.vae is not None:
        parts += [
            Part(f"guidance: UNet, {_type(made.unet)}", size(made.unet)),
            Part(f"guidance: VAE, {_type(made.vae)}", size(made.vae)),
        ]
        if made.clip is not None:
            half = next(made.unet.parameters()).element_size() / 4
            parts.append(Part("guidance: text encoder", half * text_size(made.clip)))
    elif config.needs_guidance and made.clip is not None:
        parts.append(Part("guidance: CLIP", size(made.clip)))
    if config.text.store is None and made.clip is not None:
        parts.append(Part("text tower", text_size(made.clip)))
    return tuple(parts)


def size(network: nn.Module) -> float:
    return float(sum(x.numel() * x.element_size() for x in (*network.parameters(), *network.buffers())))


def text_size(clip: nn.Module) -> float:
    return float(sum(4 * p.numel() for name, p in clip.named_parameters() if not name.startswith("visual.")))


def _type(network: nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")


def preset(config: Config, gigabytes: int) -> Config:
    """Return the configuration with the precision for a GPU of this size, and without what it has memory for."""
    precision = "float16" if gigabytes in (16, 32) else "bfloat16"  # V100s have no bfloat16
    return config.model_copy(
        update={
            "trainer": config.trainer.model_copy(update={"precision": precision}),
            "guidance": config.guidance.model_copy(update={"checkpoint": gigabytes < 80, "precision": None}),
        }
    )

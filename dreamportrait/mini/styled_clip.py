"""Training of the CLIPs of styled heads: S conditions editors and generators, T measures their scores.

Captions say left and right, sharp and blurred, so pictures are neither mirrored nor blurred in training. A part of the
texts are instructions whose result is the picture: an editor must understand the words that only instructions have.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.files import check_new
from dreamportrait.mini.augmentation import augment
from dreamportrait.mini.clip_training import BATCH, STYLED, ClipTraining, complete
from dreamportrait.miniworld import instructions
from dreamportrait.miniworld.grammar import Draw
from dreamportrait.miniworld.styled_captions import Seen, captions, evaluation_caption
from dreamportrait.miniworld.styled_world import DENIED, StyledWorld

INSTRUCTED = 0.25  # share of the texts that are instructions
_BOTH, _ABSENT = 0.4, 0.25  # shares of instructions: with style and attribute, for something that is to be absent


def train(
    variant: str,  # one of STYLED
    out: Path,
    work: Path,
    world_train: StyledWorld,
    world_validation: StyledWorld,
    *,
    steps: int | None = None,  # None = the number for the shipped weights
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Train a CLIP and write config.json and model.safetensors to `out`. A stopped run continues from `work`."""
    if variant not in STYLED:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(STYLED)}")
    check_new(out)
    training = StyledClipTraining(variant, world_train, steps, batch, torch.device(device))
    complete(training, out, work, world_validation)


class StyledClipTraining(ClipTraining):
    """The training step, on styled heads."""

    def captions(self, chosen: list[int], rng: np.random.Generator) -> list[str]:
        assert isinstance(self.world, StyledWorld)
        return [new_text(self.world.seen(i), rng) for i in chosen]

    def varied(self, images: Tensor) -> Tensor:  # [B, 3, R, R]
        return augment(images, mirrored=False, blurred=0)


def new_text(seen: Seen, rng: np.random.Generator) -> str:
    """Return an instruction, a caption, or an evaluation caption."""
    kind, seed = rng.random(), int(rng.integers(2**62))
    if kind < INSTRUCTED and (text := instruction(seen, rng)):
        return text
    if kind < (1 + INSTRUCTED) / 2:
        return captions(seen, seed, 1, DENIED)[0]
    return evaluation_caption(seen, seed)


def instruction(seen: Seen, rng: np.random.Generator) -> str:
    """Return an instruction that the head in the picture follows. "" = it shows nothing to ask for."""
    draw = Draw(rng)
    styled = instructions.styling(seen.style, draw) if seen.style else ""
    told, absent = seen.sayable(), seen.deniable()
    asked = ""
    if (not styled or draw.chance(_BOTH)) and (told or absent):
        name = draw.pick(tuple(absent if absent and (not told or draw.chance(_ABSENT)) else told))
        asked = instructions.changing({name: seen.face[name]}, draw)
    return instructions.joined(styled, asked) if styled and asked else styled or asked

"""Training of CLIP A's text tower on what captions rarely name: eye colours, and things that are absent.

One caption in eight names an eye colour, and the picture tower does not see it, so after clip_said.py a linear layer
still hardly finds it. Here every second caption names it. Features of texts that speak of neither are held where they
are, so that networks that were trained with them (the UNet) still understand them.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor, nn

from dreamportrait.core.files import check_new
from dreamportrait.mini.clip_said import BATCH, Read, SaidTraining, run
from dreamportrait.miniworld import captions
from dreamportrait.miniworld.attributes import ATTRIBUTES
from dreamportrait.miniworld.captions import Told, sayable, told
from dreamportrait.miniworld.world import World
from dreamportrait.text.tower import TextTower

STEPS, SEED = 1200, 9
RARE = "eye_color"
DENIED = 0.4  # share of captions that say what is absent
HELD_WEIGHT = 20.0


def train(
    start: Path,  # folder of the CLIP to continue from
    out: Path,
    work: Path,
    world_train: World,
    world_test: World,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
) -> None:
    """Continue the training of the text tower and write config.json and model.safetensors to `out`."""
    check_new(out)
    run(RareTraining(start, world_train, steps, batch), out, work, world_test, seed=SEED, title="clip-a-rare")


class RareTraining(SaidTraining):
    """The training step with captions that name rare things, and features that are held."""

    def __init__(self, start: Path, world: World, steps: int, batch: int) -> None:
        super().__init__(start, world, steps, batch)
        nn.init.zeros_(self.head.weight)  # a random layer would pull the tower away before it reads anything
        self.before = TextTower(deepcopy(self.model).requires_grad_(False))

    def _captions(self, chosen: Array, rng: np.random.Generator) -> list[Told]:
        faces = [self.world.attributes[i] for i in chosen]
        usual = [told(face, rng, DENIED, telling=bool(k % 2)) for k, face in enumerate(faces)]
        return [naming(caption) if k % 4 >= 2 else caption for k, caption in enumerate(usual)]

    def _contradicted(self, caption: Told, rng: np.random.Generator) -> Told:
        return contradicted(caption, rng)

    def _visibly_differ(self, true: Told, false: Told) -> bool:
        return true != false and true.face[RARE] == false.face[RARE]

    def _more_losses(self, read: Read, given: list[Told]) -> dict[str, Tensor]:
        """Return how far the features of texts moved that name nothing rare, per token and channel."""
        usual = torch.tensor([RARE not in caption.stated and not caption.absent for caption in given])
        inside = usual[:, None] & (torch.arange(read.places.shape[1]) <= read.end[:, None])  # [B, L]
        with torch.no_grad():
            before = self.before.normalise(self.before.layers(read.places)[-2])
        moved = (self.tower.normalise(read.early) - before).square().mean(2)  # [B, L]
        return {"held": HELD_WEIGHT * (moved * inside).sum() / inside.sum().clamp(min=1)}


def naming(caption: Told) -> Told:
    """Return the caption with the eye colour added, if it can be seen."""
    if RARE not in sayable(caption.face):
        return caption
    return replace(caption, stated=caption.stated | {RARE})


def contradicted(caption: Told, rng: np.random.Generator) -> Told:
    """Return a false caption. Half of those that name an eye colour name another one."""
    if RARE not in caption.stated or rng.random() < 0.5:
        return captions.contradicted(caption, rng)
    others = [value for value in ATTRIBUTES[RARE] if value != caption.face[RARE]]
    face = caption.face | {RARE: others[int(rng.integers(len(others)))]}
    return replace(caption, face=face)

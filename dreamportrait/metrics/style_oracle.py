"""The style oracle of the miniature world: it reads style, attributes and viewing angles of a head from its picture."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics.world_oracle import SIZES, Reader
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.weights import single
from dreamportrait.weights.folder import check_tensors

PLAIN = "plain"  # the answer for a head without a style
ANSWERS = (PLAIN, *NAMES)
PITCH_UNIT = 20.0  # degrees; the network gives the pitch in these units


class Outputs(NamedTuple):
    style: Tensor  # [N, answers] logits
    attributes: tuple[Tensor, ...]  # [N, values] logits each
    turn: Tensor  # [N, 2] sine and cosine of the yaw
    pitch: Tensor  # [N] in PITCH_UNIT


class Reading(NamedTuple):
    """What the oracle reads in N pictures."""

    styles: list[str]  # one of ANSWERS each
    faces: list[Attributes]  # values of attributes that the picture does not show are arbitrary
    yaw: Tensor  # [N] degrees, positive to the right of the front
    pitch: Tensor  # [N] degrees


class StyleReader(Reader):
    """The network of the style oracle."""

    def __init__(self) -> None:
        super().__init__(len(ANSWERS) + sum(SIZES) + 3)

    def forward(self, images: Tensor) -> Outputs:  # [N, 3, 64, 64] in -1 .. 1
        style, attributes, angles = self.numbers(images).split([len(ANSWERS), sum(SIZES), 3], dim=1)
        return Outputs(style, attributes.split(SIZES, dim=1), angles[:, :2], angles[:, 2])

    @torch.no_grad()
    def read(self, images: Tensor) -> Reading:  # [N, 3, R, R] in -1 .. 1
        found = [self(part) for part in self.parts(images)]
        style = torch.cat([x.style.argmax(1) for x in found]).tolist()
        rows = torch.cat([torch.stack([a.argmax(1) for a in x.attributes], 1) for x in found]).tolist()
        faces = [{name: v[i] for (name, v), i in zip(ATTRIBUTES.items(), row, strict=True)} for row in rows]
        turn, pitch = torch.cat([x.turn for x in found]), torch.cat([x.pitch for x in found])
        yaw = torch.atan2(turn[:, 0], turn[:, 1]) * (180 / math.pi)
        return Reading([ANSWERS[i] for i in style], faces, yaw, pitch * PITCH_UNIT)


def load(folder: Path) -> StyleReader:
    """Load the oracle in single precision, in eval mode, without gradients for its weights."""
    tensors, config = single.read(folder)
    known = config.get("attributes"), config.get("styles")
    if known != ({name: list(values) for name, values in ATTRIBUTES.items()}, list(ANSWERS)):
        raise WeightsError(f"{folder} was trained on other attributes or styles; train the style oracle again")
    oracle = StyleReader()
    check_tensors(oracle, tensors, str(folder / single.WEIGHTS))
    oracle.load_state_dict(tensors)
    return oracle.eval().requires_grad_(False)

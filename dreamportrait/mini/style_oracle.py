"""Training of the style oracle on rendered heads, whose styles, attributes and cameras are known exactly.

Attributes that a picture does not show (those that a style changes, a face seen from behind) are neither trained nor
scored.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.core.files import check_new
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.style_oracle import ANSWERS, PITCH_UNIT, PLAIN, Outputs, StyleReader, load
from dreamportrait.mini.oracle import HIDDEN, ReaderTraining, attributes_loss
from dreamportrait.miniworld.attributes import ATTRIBUTES
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.training.loop import Stateful, fit
from dreamportrait.weights import single

STEPS, BATCH, SEED = 6_000, 64, 8
STYLE_WEIGHT, ANGLE_WEIGHT = 3.0, 8.0  # beside one for each attribute


class Truth:
    """What the pictures of a world show."""

    def __init__(self, world: StyledWorld) -> None:
        seen = [world.seen(i) for i in range(len(world))]
        self.style = torch.tensor([ANSWERS.index(each.style.name if each.style else PLAIN) for each in seen])  # [N]
        rows = []
        for each in seen:
            visible = set(each.visible())
            row = [v.index(each.face[name]) if name in visible else HIDDEN for name, v in ATTRIBUTES.items()]
            rows.append(row)
        self.classes = torch.tensor(rows)  # [N, attributes]
        self.yaw = torch.from_numpy(world.yaws.copy()).double()  # [N] degrees
        self.pitch = pitches(world.cameras)  # [N] degrees

    def loss(self, made: Outputs, chosen: Tensor) -> Tensor:
        device = made.style.device
        yaw = self.yaw[chosen].deg2rad()
        turn = torch.stack([yaw.sin(), yaw.cos()], 1).float().to(device)
        pitch = (self.pitch[chosen] / PITCH_UNIT).float().to(device)
        style = F.cross_entropy(made.style.float(), self.style[chosen].to(device))
        angles = F.mse_loss(made.turn.float(), turn) + F.mse_loss(made.pitch.float(), pitch) / 4
        attributes = attributes_loss(made.attributes, self.classes[chosen])
        return attributes + STYLE_WEIGHT * style + ANGLE_WEIGHT * angles


def pitches(cameras: np.ndarray) -> Tensor:  # [N, 25] -> [N]
    """Return the heights of cameras above the horizon, in degrees."""
    places = torch.from_numpy(cameras[:, :16].copy()).double().view(-1, 4, 4)[:, :3, 3]
    return torch.asin(places[:, 1] / places.norm(dim=1)).rad2deg()


def train(
    out: Path,
    work: Path,
    world_train: StyledWorld,
    world_validation: StyledWorld,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Train the oracle and write config.json and model.safetensors to `out`. A stopped run continues from `work`."""
    check_new(out)
    truth = Truth(world_train)
    shown = world_train.images, truth.loss
    training = ReaderTraining(StyleReader, *shown, steps, batch, torch.device(device), SEED, mirrored=False)
    state: dict[str, Stateful] = {"model": training.oracle, "optimizer": training.optimizer}
    fit(training.step, state, steps, work, seed=SEED, title="style-oracle")
    notes: dict[str, Any] = {
        "name": "style-oracle",
        "training": {"faces": len(world_train), "steps": steps, "batch": batch, "seed": SEED},
    }
    save(training.oracle, work / "unscored", notes)
    scores = score(load(work / "unscored"), world_validation)
    save(training.oracle, out, notes | scores)


def save(oracle: StyleReader, folder: Path, notes: dict[str, Any]) -> None:
    single.write(folder, oracle.state_dict(), {"styles": ANSWERS, "attributes": dict(ATTRIBUTES), **notes})


def score(oracle: StyleReader, world: StyledWorld) -> dict[str, Any]:
    """Return shares of right answers, of styles and of each attribute over the pictures that show it, and errors."""
    truth, read = Truth(world), oracle.read(from_bytes(torch.from_numpy(np.array(world.images))))
    styles = torch.tensor([ANSWERS.index(name) for name in read.styles])
    rows = [[v.index(face[name]) for name, v in ATTRIBUTES.items()] for face in read.faces]
    right, seen = torch.tensor(rows) == truth.classes, truth.classes != HIDDEN
    turned = (read.yaw.double() - truth.yaw + 180) % 360 - 180
    front = truth.yaw.abs() <= 30
    counts = zip(ATTRIBUTES, (right & seen).sum(0).tolist(), seen.sum(0).tolist(), strict=True)
    return {
        "scores": {
            "faces": len(world),
            "style": round(float((styles == truth.style).float().mean()), 4),
            "style_within_30_degrees": round(float((styles == truth.style)[front].float().mean()), 4),
            "visible_attributes": round(float(right[seen].float().mean()), 4),
            "visible_attributes_within_30_degrees": round(float(right[seen & front[:, None]].float().mean()), 4),
            "yaw_error_degrees": round(float(turned.abs().mean()), 2),
            "pitch_error_degrees": round(float((read.pitch.double() - truth.pitch).abs().mean()), 2),
        },
        "accuracy": {name: round(hits / count, 4) for name, hits, count in counts if count},
    }

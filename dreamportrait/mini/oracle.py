"""The attribute oracle: a small network that reads the attributes of a face back from its picture.

It learns from rendered faces, whose attributes are known exactly, and is itself scored on others. What a picture
cannot show (the colour of a hat that is not there) is neither learned nor scored; there it still answers something.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.mini import weight_files
from dreamportrait.mini.attributes import ATTRIBUTES, Attributes, is_visible
from dreamportrait.mini.augmentation import augment
from dreamportrait.mini.world import World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.weights.errors import WeightsError
from dreamportrait.weights.store import check_tensors

STEPS, BATCH, SEED = 1800, 128, 0
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.02
RESOLUTION = 64
HIDDEN = -100  # the class of what cannot be seen; cross entropy leaves it out
_BATCH = 200
_SIZES = [len(values) for values in ATTRIBUTES.values()]


class Oracle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 16),
            *_conv(16, 32, stride=2),
            *_conv(32, 48),
            *_conv(48, 64, stride=2),
            *_conv(64, 64),
            *_conv(64, 96, stride=2),
            *_conv(96, 48, kernel=1),
            nn.AvgPool2d(2),
        )
        self.hidden = nn.Linear(48 * 4 * 4, 112)
        self.heads = nn.Linear(112, sum(_SIZES))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # [N, 3, 64, 64] in -1 .. 1 -> logits [N, values] each
        x = self.features(images).flatten(1)  # [N, 768]
        logits: Tensor = self.heads(F.relu(self.hidden(x)))
        return logits.split(_SIZES, dim=1)

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, attributes]
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or not len(images):
            raise ValueError(f"images {list(images.shape)}: must be [N, 3, R, R] with N at least 1")
        device = self.heads.weight.device
        return torch.cat([self._classes(part.to(device)) for part in images.split(_BATCH)])

    def read(self, images: Tensor) -> list[Attributes]:  # [N, 3, R, R] in -1 .. 1
        rows = self.classes(images).tolist()
        return [{name: v[i] for (name, v), i in zip(ATTRIBUTES.items(), row, strict=True)} for row in rows]

    def _classes(self, images: Tensor) -> Tensor:
        if images.shape[2] != RESOLUTION:
            images = F.interpolate(images, (RESOLUTION, RESOLUTION), mode="bicubic", antialias=True)
        return torch.stack([logits.argmax(1) for logits in self(images.clamp(-1, 1))], dim=1)


def accuracy(oracle: Oracle, images: Tensor, attributes: Sequence[Attributes]) -> dict[str, float]:
    """By attribute: the share of the pictures that show it for which the oracle is right; left out if none does."""
    if len(images) != len(attributes):
        raise ValueError(f"{len(images)} images and attributes of {len(attributes)} faces: must be as many")
    truth = to_classes(attributes)
    right = oracle.classes(images).cpu() == truth
    seen = truth != HIDDEN
    counts = zip(ATTRIBUTES, (right & seen).sum(0).tolist(), seen.sum(0).tolist(), strict=True)
    return {name: hits / count for name, hits, count in counts if count}


def to_classes(attributes: Sequence[Attributes]) -> Tensor:  # [N, attributes], HIDDEN where not to be seen
    rows = [[v.index(a[n]) if is_visible(a, n) else HIDDEN for n, v in ATTRIBUTES.items()] for a in attributes]
    return torch.tensor(rows)


# Disk.


def save(oracle: Oracle, folder: Path, notes: dict[str, Any]) -> None:
    weight_files.write(folder, oracle.state_dict(), {"attributes": dict(ATTRIBUTES), **notes})


def load(folder: Path) -> Oracle:
    """In single precision, in eval mode, without gradients for its weights."""
    tensors, config = weight_files.read(folder)
    if config.get("attributes") != {name: list(values) for name, values in ATTRIBUTES.items()}:
        raise WeightsError(f"{folder} was trained on other attributes; train the oracle again")
    oracle = Oracle()
    check_tensors(oracle, tensors, str(folder / weight_files.WEIGHTS))
    oracle.load_state_dict(tensors)
    return oracle.eval().requires_grad_(False)


# Training.


def train(
    out: Path,
    work: Path,
    world_train: World,
    world_test: World,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Writes config.json and model.safetensors; a stopped run continues from `work`."""
    weight_files.check_new(out)
    training = OracleTraining(world_train, steps, batch, torch.device(device))
    state: dict[str, Stateful] = {"model": training.oracle, "optimizer": training.optimizer}
    fit(training.step, state, steps, work, seed=SEED, title="oracle")
    notes: dict[str, Any] = {
        "name": "oracle",
        "training": {"faces": len(world_train), "steps": steps, "batch": batch, "seed": SEED},
    }
    save(training.oracle, work / "unscored", notes)
    images = torch.from_numpy(np.array(world_test.images)).float() / 127.5 - 1
    scores = accuracy(load(work / "unscored"), images, world_test.attributes)
    notes["scores"] = {"faces": len(world_test), "least_accuracy": round(min(scores.values()), 4)}
    notes["accuracy"] = {name: round(value, 4) for name, value in scores.items()}
    save(training.oracle, out, notes)


class OracleTraining:
    """Network, optimiser and one step."""

    def __init__(self, world: World, steps: int, batch: int, device: torch.device) -> None:
        self.world, self.steps, self.batch, self.device = world, steps, batch, device
        self.classes = to_classes(world.attributes)  # [N, attributes]
        torch.manual_seed(SEED)
        self.oracle = Oracle().to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(
            self.oracle.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
        )

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE))
        chosen = torch.randint(len(self.world), (self.batch,)).sort().values
        images = torch.from_numpy(self.world.images[chosen.numpy()]).to(self.device).float() / 127.5 - 1
        images = augment(images, noise=0.06, blurred=0.25, reduction=1.5, colour=0.03)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.oracle(images.contiguous(memory_format=torch.channels_last))
        targets = self.classes[chosen].to(self.device).unbind(1)
        losses = [F.cross_entropy(x.float(), y) for x, y in zip(logits, targets, strict=True) if (y != HIDDEN).any()]
        loss = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)

"""Training of the attribute oracle, a small network that reads the attributes of a face from its picture.

It is trained on rendered faces, whose attributes are known exactly, and scored on other rendered faces. Attributes that
a picture cannot show (the colour of a missing hat) are neither trained nor scored; the output for them is arbitrary.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from torch import Tensor, nn

from dreamportrait.core.files import check_new
from dreamportrait.core.machine import autocast
from dreamportrait.metrics.world_oracle import AttributeReader, load
from dreamportrait.mini.augmentation import augment
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.weights import single

STEPS, BATCH, SEED = 1800, 128, 0
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.02
Net = TypeVar("Net", bound=nn.Module)
HIDDEN = -100  # the class of an attribute that cannot be seen; cross entropy ignores it


def accuracy(oracle: AttributeReader, images: Tensor, attributes: Sequence[Attributes]) -> dict[str, float]:
    """Return, by attribute, the share of right answers over the pictures that show it; omit attributes never shown."""
    if len(images) != len(attributes):
        raise ValueError(f"{len(images)} images and attributes of {len(attributes)} faces: the numbers must be equal")
    truth = to_classes(attributes)
    right = oracle.classes(images).cpu() == truth
    seen = truth != HIDDEN
    counts = zip(ATTRIBUTES, (right & seen).sum(0).tolist(), seen.sum(0).tolist(), strict=True)
    return {name: hits / count for name, hits, count in counts if count}


def to_classes(attributes: Sequence[Attributes]) -> Tensor:  # [N, attributes], HIDDEN where not visible
    rows = [[v.index(a[n]) if is_visible(a, n) else HIDDEN for n, v in ATTRIBUTES.items()] for a in attributes]
    return torch.tensor(rows)


# Saving.


def save(oracle: AttributeReader, folder: Path, notes: dict[str, Any]) -> None:
    single.write(folder, oracle.state_dict(), {"attributes": dict(ATTRIBUTES), **notes})


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
    """Train the oracle and write config.json and model.safetensors to `out`. A stopped run continues from `work`."""
    check_new(out)
    training = oracle_training(world_train, steps, batch, torch.device(device))
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


class ReaderTraining(Generic[Net]):
    """A network that reads pictures, its optimiser and the training step."""

    def __init__(
        self,
        make: Callable[[], Net],
        images: Array,  # [N, 3, R, R] uint8
        loss: Callable[[Any, Tensor], Tensor],  # takes the network's answers and the numbers [B] of the pictures
        steps: int,
        batch: int,
        device: torch.device,
        seed: int = SEED,
        mirrored: bool = True,  # whether half of the pictures are mirrored
    ) -> None:
        self.images, self.loss, self.steps, self.batch, self.device = images, loss, steps, batch, device
        self.mirrored = mirrored
        torch.manual_seed(seed)
        self.oracle = make().to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(
            self.oracle.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
        )

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE))
        chosen = torch.randint(len(self.images), (self.batch,)).sort().values
        images = torch.from_numpy(self.images[chosen.numpy()]).to(self.device).float() / 127.5 - 1
        images = augment(images, noise=0.06, blurred=0.25, reduction=1.5, colour=0.03, mirrored=self.mirrored)
        with autocast(self.device):
            answers = self.oracle(images.contiguous(memory_format=torch.channels_last))
        loss = self.loss(answers, chosen)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}


def oracle_training(world: World, steps: int, batch: int, device: torch.device) -> ReaderTraining[AttributeReader]:
    """Return the training of the attribute oracle."""
    classes = to_classes(world.attributes)  # [N, attributes]

    def loss(logits: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
        return attributes_loss(logits, classes[chosen])

    return ReaderTraining(AttributeReader, world.images, loss, steps, batch, device)


def attributes_loss(logits: Sequence[Tensor], classes: Tensor) -> Tensor:  # [B, values] each, [B, attributes] -> []
    """Return the sum over attributes of the mean cross entropies over the pictures that show them."""
    targets = classes.to(logits[0].device).unbind(1)
    pairs = zip(logits, targets, strict=True)
    return torch.stack([F.cross_entropy(x.float(), y) for x, y in pairs if (y != HIDDEN).any()]).sum()

"""Stage 2: the mapping network learns to compute from noise the w that the attribute mapper computes from attributes.

This is plain regression from z to w without rendering. The code z determines the attributes, so training pairs cost
nothing. Attributes are an argmax over numbers of the code, which is hard to learn: a narrow network, or a low learning
rate, blends attribute values whose numbers are nearly equal (R^2 0.4 after 3000 steps at a rate of 0.3, 0.87 at 8).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.mini.eg3d.warm import AttributeMapper
from dreamportrait.miniworld.attributes import is_held_out, read_code, sample_codes, to_vector
from dreamportrait.miniworld.world import random_cameras
from dreamportrait.training.loop import cosine, fit

SEED = 4  # for the codes
SLOWNESS = 0.01  # the mapping network's lr_multiplier: its stored weights are 100 times the effective ones
BATCH = 256


class Pairs:
    """Codes without held-out pairs of attributes, their standardised w, and random cameras unrelated to the codes."""

    def __init__(self, mapper: nn.Module, count: int) -> None:
        codes = sample_codes(count + count // 4, SEED)
        faces = [read_code(z) for z in codes]
        kept = [i for i, (attributes, _) in enumerate(faces) if not is_held_out(attributes)][:count]
        vectors = torch.from_numpy(np.stack([to_vector(*faces[i]) for i in kept]))
        with torch.no_grad():
            w = torch.cat([mapper(part) for part in vectors.split(4096)])  # [count, w_dim]
        self.z, self.mean, self.spread = torch.from_numpy(codes[kept]), w.mean(0), w.std(0)
        self.w = self.scaled(w)
        self.cameras = torch.from_numpy(random_cameras(4096, SEED))
        self.held = count // 20  # the first `held` pairs are for testing

    def scaled(self, w: Tensor) -> Tensor:
        return (w - self.mean) / self.spread

    def camera(self, count: int) -> Tensor:
        return self.cameras[torch.randint(len(self.cameras), (count,))]

    def draw(self) -> Tensor:
        return torch.randint(self.held, len(self.z), (BATCH,))


def train(
    work: Path,
    generator: TriPlaneGenerator,
    mapper: AttributeMapper,
    *,
    steps: int,
    pairs: int = 200_000,
    lr: float = 8.0,
) -> float:
    """Train the generator's mapping network in place, set its average w and return R^2 on unseen codes."""
    known = Pairs(mapper, pairs)
    mapping = generator.backbone.mapping
    first = mapping.get_submodule("fc0")
    assert isinstance(first, FullyConnected)
    with torch.no_grad():
        first.weight[:, generator.config.z_dim :] = 0  # at the start the camera has no influence
    mapping.w_avg.copy_(known.mean)
    _regress(work, mapping, known, steps, lr)
    with torch.no_grad():
        made = known.scaled(mapping(known.z[: known.held], known.camera(known.held)))
        return 1 - float((made - known.w[: known.held]).square().mean())


def _regress(work: Path, mapping: nn.Module, known: Pairs, steps: int, lr: float) -> None:
    optimizer = _adam(mapping)

    def step(index: int) -> dict[str, Tensor]:
        _set_lr(optimizer, cosine(index, steps, lr))
        chosen = known.draw()
        loss = (known.scaled(mapping(known.z[chosen], known.camera(BATCH))) - known.w[chosen]).square().mean()
        _update(optimizer, loss)
        return {"unexplained": loss}

    fit(step, {"mapping": mapping, "optimizer": optimizer}, steps, work, seed=2, log_every=500, title="eg3d-map")


def _adam(mapping: nn.Module) -> torch.optim.Optimizer:
    """Return an optimiser with two groups: the layers with the lr_multiplier, and the camera embedding without one."""
    weights = dict(mapping.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [weight for name, weight in weights.items() if not name.startswith("embed")]},
        {"params": [weight for name, weight in weights.items() if name.startswith("embed")]},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    slow, embedding = optimizer.param_groups
    slow["lr"], embedding["lr"] = lr, SLOWNESS * lr


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()

"""Stage 2: the mapping network learns to do from noise what the attribute mapper does from attributes.

First plain regression z -> w, without rendering: the code z determines the attributes, so pairs are free. A network as
small as this blends the values of attributes that are nearly as likely, though. So a critic then compares its w with
those of real attributes, which come unblended, and teaches it to decide.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamportrait.generator import TriPlaneGenerator
from dreamportrait.generator.layers import FullyConnected
from dreamportrait.mini.attributes import is_held_out, read_code, sample_codes, to_vector
from dreamportrait.mini.eg3d.warm import AttributeMapper
from dreamportrait.mini.world import random_cameras
from dreamportrait.training.loop import Stateful, cosine, fit
from dreamportrait.training.losses import discriminator_loss, generator_loss

SEED = 4  # of the codes
SLOWNESS = 0.01  # the mapping network's lr_multiplier: its weights are stored a hundred times too large
BATCH = 256
GAMMA = 0.5  # of the critic's R1
ANCHOR = 0.05  # weight of the regression while the critic teaches


class Pairs:
    """Codes without held-out pairs of attributes, their w in units of its spread, and cameras that say nothing."""

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
        self.held = count // 20  # the first so many are kept for the test

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
    sharpening: int,
    pairs: int = 60_000,
    lr: float = 0.3,
) -> float:
    """Trains the generator's mapping network in place and sets its average w; returns R^2 on unseen codes."""
    known = Pairs(mapper, pairs)
    mapping = generator.backbone.mapping
    first = mapping.get_submodule("fc0")
    assert isinstance(first, FullyConnected)
    with torch.no_grad():
        first.weight[:, generator.config.z_dim :] = 0  # whose camera it is does not matter yet
    mapping.w_avg.copy_(known.mean)
    _regress(work / "regression", mapping, known, steps, lr)
    _sharpen(work / "sharpening", mapping, known, sharpening, lr / 3)
    with torch.no_grad():
        made = known.scaled(mapping(known.z[: known.held], known.camera(known.held)))
        return 1 - float((made - known.w[: known.held]).square().mean())


def _regress(work: Path, mapping: nn.Module, known: Pairs, steps: int, lr: float) -> None:
    optimizer = _adam(mapping, (0.9, 0.99))

    def step(index: int) -> dict[str, Tensor]:
        _set_lr(optimizer, cosine(index, steps, lr))
        chosen = known.draw()
        loss = (known.scaled(mapping(known.z[chosen], known.camera(BATCH))) - known.w[chosen]).square().mean()
        _update(optimizer, loss)
        return {"unexplained": loss}

    fit(step, {"mapping": mapping, "optimizer": optimizer}, steps, work, seed=2, log_every=500, title="eg3d-map")


def _sharpen(work: Path, mapping: nn.Module, known: Pairs, steps: int, lr: float) -> None:
    optimizer = _adam(mapping, (0.0, 0.99))
    width = known.w.shape[1]
    critic = nn.Sequential(nn.Linear(width, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2))
    critic.append(nn.Linear(256, 1))
    optimizer_c = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.99))

    def step(index: int) -> dict[str, Tensor]:
        _set_lr(optimizer, cosine(index, steps, lr))
        chosen = known.draw()
        made = known.scaled(mapping(known.z[chosen], known.camera(BATCH)))
        unexplained = (made - known.w[chosen]).square().mean()
        fooling = generator_loss(critic(made))
        _update(optimizer, fooling + ANCHOR * unexplained)
        real = known.w[known.draw()].requires_grad_()
        logits = critic(real)
        telling = discriminator_loss(logits, critic(made.detach()))
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        _update(optimizer_c, telling + GAMMA / 2 * slope.square().sum(1).mean())
        return {"unexplained": unexplained, "critic": telling}

    state: dict[str, Stateful] = {"mapping": mapping, "optimizer": optimizer}
    state |= {"critic": critic, "optimizer_c": optimizer_c}
    fit(step, state, steps, work, seed=6, log_every=500, title="eg3d-sharpen")


def _adam(mapping: nn.Module, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """The slow layers, and the camera's embedding, which is not slow."""
    weights = dict(mapping.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [weight for name, weight in weights.items() if not name.startswith("embed")]},
        {"params": [weight for name, weight in weights.items() if name.startswith("embed")]},
    ]
    return torch.optim.Adam(groups, betas=betas)


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    slow, embedding = optimizer.param_groups
    slow["lr"], embedding["lr"] = lr, SLOWNESS * lr


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()

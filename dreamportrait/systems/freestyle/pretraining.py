"""Pretraining of the image-to-triplane network on a generator's own heads (eq. 4 of the paper).

    w ~ W, p = planes of w, I_f = the front of p                    recorded with the noise maps that rendering uses
    L = E |H(I_f) - p|_1                                            eq. 4

L1 is taken in units of the planes' spread, because planes are loud (`plane_loss`). Towards the end, renders from random
cameras count too, and always the guess of w, which super-resolution needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.core.signals import Signals
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.freestyle.generator import PictureTo3D, plane_statistics
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life
from eg3d_ops._checks import check_int, check_number

PlaneLoss = Literal["scaled", "raw"]
# The paper states neither rate nor betas of pretraining. With those of tuning, 0.002 and (0, 0.99), H learns a third as
# much of the planes' variance in the same steps (docs/styles.md).
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class PretrainSettings:
    images: int = 1_600_000
    batch: int = 16
    lr: float = 0.02  # of Adam with BETAS
    plane_loss: PlaneLoss = "scaled"  # raw: the paper's, without units
    render_share: float = 0.25  # of the steps, at the end, that also compare renders; 0 = the paper
    w_weight: float = 1.0
    truncation: float = 1.0
    yaw: float = 30.0  # degrees to either side of the cameras of renders
    pitch: float = 30.0
    statistics: int = 4096  # heads whose planes give mean and spread
    ema_images: int = 20_000  # half-life of the running average
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "batch", "statistics", "ema_images"):
            check_int(name, getattr(self, name), 1)
        if not 0 <= check_number("render_share", self.render_share) <= 1:
            raise ValueError(f"render_share={self.render_share}: must be within 0 .. 1, the last part of the steps")
        if self.plane_loss not in ("scaled", "raw"):
            raise ValueError(f"plane_loss={self.plane_loss!r}: must be one of scaled, raw")

    @property
    def steps(self) -> int:
        return max(1, self.images // self.batch)

    def renders(self, step: int) -> bool:
        """Return whether a step also compares renders."""
        return step >= self.steps - round(self.render_share * self.steps)


class Pairs(NamedTuple):
    """Heads of the generator and their fronts."""

    w: Tensor  # [N, w_dim]
    planes: Tensor  # [N, P, C, H, W]
    front: Tensor  # [N, 3, R, R]


@torch.no_grad()
def draw_pairs(generator: TriPlaneGenerator, count: int, truncation: float) -> Pairs:
    """Draw heads with torch's global generator, on the CPU, and render their fronts."""
    return pairs_of(generator, torch.randn(count, generator.config.z_dim), truncation)


@torch.no_grad()
def pairs_of(generator: TriPlaneGenerator, z: Tensor, truncation: float) -> Pairs:  # [N, z_dim]
    """Make the heads of latents, and render their fronts."""
    ws = ws_of(generator, z, truncation)
    planes = generator.synthesize_planes(ws, noise="const")
    front = generator.config.around([0.0]).to(ws).expand(len(z), -1)
    return Pairs(ws[:, 0], planes, generator.render(planes, front, w=ws).image.clamp(-1, 1))


def draw_ws(generator: TriPlaneGenerator, count: int, truncation: float) -> Tensor:  # [N, num_ws, w_dim]
    return ws_of(generator, torch.randn(count, generator.config.z_dim), truncation)


@torch.no_grad()
def ws_of(generator: TriPlaneGenerator, z: Tensor, truncation: float) -> Tensor:  # [N, z_dim] -> [N, num_ws, w_dim]
    device = next(generator.parameters()).device
    front = generator.config.around([0.0]).to(device)
    return generator.map(z.to(device), front.expand(len(z), -1), truncation)


def draw_cameras(generator: TriPlaneGenerator, count: int, yaw: float, pitch: float) -> Tensor:  # [N, 25]
    """Draw cameras uniformly within these angles to either side, with torch's global generator."""
    return cameras_of(generator, torch.rand(count, 2), yaw, pitch)


def cameras_of(generator: TriPlaneGenerator, shares: Tensor, yaw: float, pitch: float) -> Tensor:  # [N, 2] -> [N, 25]
    """Return cameras within these angles to either side. shares: 0 = the left or lower end, 1 = the other one."""
    angles = (shares * 2 - 1) * torch.tensor([yaw, pitch])
    return torch.cat([generator.config.around([float(y)], float(p)) for y, p in angles])


# Eq. 4: L = E |H(I_f) - p|_1.
def plane_error(network: ImageToTriplane, made: Tensor, planes: Tensor, kind: PlaneLoss) -> Tensor:  # []
    """Return the mean absolute error of the planes. scaled: in units of the spread of their channel."""
    difference = (made - planes).abs()
    return (difference / network.deviation).mean() if kind == "scaled" else difference.mean()


def pretraining_losses(
    styled: PictureTo3D,
    pairs: Pairs,
    settings: PretrainSettings,
    cameras: Tensor | None = None,  # [N, 25] of renders to compare. None = none
    perceptual: Perceptual | None = None,
) -> dict[str, Tensor]:
    """Return the losses of one step by name; their sum is minimised."""
    made = styled.i2t(pairs.front)
    heads = styled.planes(made)
    losses = {
        "planes": plane_error(styled.i2t, heads.planes, pairs.planes, settings.plane_loss),
        "w": settings.w_weight * F.l1_loss(made.w, pairs.w),
    }
    if cameras is not None:
        with torch.no_grad():
            ws = styled.ws(pairs.w)
            wanted = styled.generator.render(pairs.planes, cameras, w=ws).image
        seen = heads.view(cameras).image
        losses["render"] = F.l1_loss(seen, wanted)
        if perceptual is not None:
            losses["perceptual"] = perceptual(seen, wanted)
    return losses


def average_beta(step: int, settings: PretrainSettings) -> float:
    """Return beta of the running average. The first steps count little, because the network was random."""
    return min(half_life(settings.batch, settings.ema_images), (step + 1) / (step + 10))


def pretrain(
    styled: PictureTo3D,
    settings: PretrainSettings,
    folder: Path,  # state and log; a run that was stopped continues from it
    perceptual: Perceptual | None = None,
    signals: Signals | None = None,
    every: Mapping[int, Callable[[int], None]] | None = None,  # see training/loop.py
    draw: Callable[[int], Pairs] | None = None,  # returns so many heads. None = the generator draws new ones
) -> ImageToTriplane:
    """Train the network and return its running average, in eval mode."""
    network, generator, s = styled.i2t.train(), styled.generator, settings
    device = next(generator.parameters()).device
    torch.manual_seed(s.seed)
    network.set_statistics(*plane_statistics(generator, draw_ws(generator, s.statistics, s.truncation)[:, 0], s.batch))
    average = Ema(network)
    optimizer = torch.optim.Adam(network.parameters(), s.lr, BETAS)

    def step(index: int) -> dict[str, Tensor]:
        pairs = draw(s.batch) if draw else draw_pairs(generator, s.batch, s.truncation)
        cameras = draw_cameras(generator, s.batch, s.yaw, s.pitch).to(device) if s.renders(index) else None
        losses = pretraining_losses(styled, pairs, s, cameras, perceptual)
        set_lr(optimizer, cosine(index, s.steps, s.lr, warmup=min(100, s.steps)))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        average.update(network, average_beta(index, s))
        return losses

    state: dict[str, Stateful] = {"network": network, "average": average, "optimizer": optimizer}
    fit(step, state, s.steps, folder, seed=s.seed, title="pretraining", signals=signals, every=every)
    found = average.module
    assert isinstance(found, ImageToTriplane)
    return found.eval()

"""Tuning of H to a style, on the edited views of a few-shot set (eq. 5 to 7 of the paper).

    here       paper
    front      I_f, what H reads: the edited front (the paper's), or the unedited one, see `Input`
    view       I_v, an edited view of the same identity from the camera v
    seen       G*(I_f, v), what H and the frozen decoder and super-resolution make of the front

    L_rec = |G*(I_f, v) - I_v|_1 + lpips(G*(I_f, v), I_v)           eq. 5
    L_dr  = |sigma(x) - sigma(x + dx)|, dx ~ N(0, 0.004)            eq. 6
    L     = 10 L_rec + 0.2 L_dr                                     eq. 7

A step takes one identity: its planes are made once and seen from several cameras.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.freestyle.adapted import LowRankNetwork
from dreamportrait.systems.freestyle.fewshot import FewShot
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.network import ImageToTriplane, Prediction
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.losses import density_points, density_regularization
from eg3d_ops._checks import check_int, check_number

SAVE_EVERY = 100  # steps
FLOOR = -2.0
Input = Literal["source", "edited"]  # source: the adapter needs no editor afterwards
Predict = Callable[[Tensor], Prediction]  # fronts [N, 3, R, R]


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a tuning. train="all" and input="edited" are the paper's."""

    steps: int = 800
    views: int = 4  # of one identity, in a step
    lr: float = 0.002  # of Adam with betas (0, 0.99)
    decay: bool = False  # whether the rate falls as a cosine; the paper does not say
    rec_weight: float = 10.0
    density_weight: float = 0.2
    floor_weight: float = field(default=0.0, metadata={"later": True})  # of densities below FLOOR; 0 = the paper
    w_weight: float = 0.0  # of the error of the guess of w, whose truth is that of the unedited head; 0 = the paper
    train: Literal["lora", "all"] = "lora"
    rank: int = 4
    # Positions, along each side of the planes, that share a number of an offset that all heads get; with train="lora".
    offset_stride: int = field(default=0, metadata={"later": True})  # 0 = no offset
    input: Input = "source"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "views", "rank"):
            check_int(name, getattr(self, name), 1)
        if check_int("offset_stride", self.offset_stride, 0) and self.train == "all":
            raise ValueError(
                f"offset_stride={self.offset_stride} with train='all': the offset comes with low-rank deltas; set "
                "offset_stride=0, or train=lora"
            )
        for name in ("rec_weight", "density_weight", "floor_weight", "w_weight"):
            if check_number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if check_number("lr", self.lr) <= 0:
            raise ValueError(f"lr={self.lr}: must be positive")
        for name, known in (("train", ("lora", "all")), ("input", ("source", "edited"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(known)}")


# Eq. 5: L_rec = |G*(I_f, v) - I_v|_1 + lpips.
def reconstruction_loss(seen: Tensor, view: Tensor, perceptual: Perceptual | None) -> Tensor:  # [V, 3, R, R] x 2 -> []
    loss = F.l1_loss(seen, view)
    return loss if perceptual is None else loss + perceptual(seen, view)


def floor_loss(generator: TriPlaneGenerator, planes: Tensor, points: Tensor) -> Tensor:  # [N, M, 3] -> []
    """Return how far densities, before their activation, are below FLOOR.

    The activation is a softplus. A pretrained generator has densities of -60 beside a head, from where no gradient of a
    picture returns: shapes that stand out from the head cannot grow. At FLOOR space is a thin mist.
    """
    density, _ = generator.sample_density_and_color(points, planes)
    return F.relu(FLOOR - density).mean()


def tuning_losses(
    styled: PictureTo3D,
    predict: Predict,
    front: Tensor,  # [1, 3, R, R]
    views: Tensor,  # [V, 3, R, R]
    cameras: Tensor,  # [V, 25]
    settings: TuneSettings,
    perceptual: Perceptual | None = None,
    w: Tensor | None = None,  # [1, w_dim] of the unedited head. None = the guess of w is not compared
) -> dict[str, Tensor]:
    """Return the weighted losses of one step by name. Without w, their sum is eq. 7."""
    made = predict(front)
    head = styled.planes(made)
    shared = styled.generator.render(
        head.planes.expand(len(views), -1, -1, -1, -1), cameras, w=head.ws.expand(len(views), -1, -1)
    )
    points = density_points(1, device=front.device)
    losses = {"reconstruction": settings.rec_weight * reconstruction_loss(shared.image, views, perceptual)}
    if settings.floor_weight:
        losses["floor"] = settings.floor_weight * floor_loss(
            styled.generator, head.planes, points[0] * styled.generator.config.box_warp / 2
        )
    if settings.density_weight:  # eq. 6
        smooth = density_regularization(styled.generator, head.planes, *points)
        losses["density"] = settings.density_weight * smooth
    if w is not None:
        losses["w"] = settings.w_weight * F.l1_loss(made.w, w)
    return losses


def tune(
    base: PictureTo3D,
    data: FewShot,
    settings: TuneSettings,
    folder: Path,  # state and log; a run that was stopped continues from it
    perceptual: Perceptual | None = None,
    signals: Signals | None = None,
    say: Callable[[str], object] | None = None,  # gets the lines of the log. None = they are printed
) -> nn.Module:
    """Tune a copy of H. Return the low-rank deltas, or the whole tuned network with train="all". The base stays."""
    torch.manual_seed(settings.seed)
    trained: LowRankNetwork | ImageToTriplane
    if settings.train == "lora":
        trained = LowRankNetwork(base.i2t, settings.rank, settings.seed, settings.offset_stride)
    else:
        trained = deepcopy(base.i2t).requires_grad_(True)
    tune_network(trained, base, data, settings, folder, perceptual, signals, say)
    return trained


def tune_network(
    trained: nn.Module,  # takes fronts and returns a Prediction; it is changed
    base: PictureTo3D,
    data: FewShot,
    settings: TuneSettings,
    folder: Path,
    perceptual: Perceptual | None = None,
    signals: Signals | None = None,
    say: Callable[[str], object] | None = None,
) -> None:
    """Tune a network on a few-shot set, and switch it to evaluation. The base gives unedited fronts, and renders."""
    s, device = settings, next(base.generator.parameters()).device
    trained.train()
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], s.lr, (0.0, 0.99))
    ws = data.heads(base.generator).ws[:, :1] if s.w_weight else None  # [I, 1, w_dim]
    fronts, images, cameras = input_fronts(base, data, s.input), data.images.to(device), data.cameras.to(device)

    def step(index: int) -> dict[str, Tensor]:
        k = int(torch.randint(len(data), ()))
        chosen = torch.randint(len(cameras), (s.views,)).to(device)
        drawn = images[k, chosen], cameras[chosen]
        if s.decay:
            set_lr(optimizer, cosine(index, s.steps, s.lr, warmup=min(20, s.steps)))
        w = None if ws is None else ws[k]
        losses = tuning_losses(base, trained, fronts[k, None], *drawn, s, perceptual, w)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        return losses

    state: dict[str, Stateful] = {"trained": trained, "optimizer": optimizer}
    fit(step, state, s.steps, folder, seed=s.seed, save_every=SAVE_EVERY, title="tuning", signals=signals, say=say)
    trained.eval()


@torch.no_grad()
def input_fronts(base: PictureTo3D, data: FewShot, kind: Input) -> Tensor:  # [I, 3, R, R]
    """Return the fronts that H reads in tuning: edited ones, or the generator's own."""
    device = next(base.generator.parameters()).device
    if kind == "edited":
        return data.fronts.to(device)
    front = base.generator.config.around([0.0]).to(device)
    pictures = [head.view(front).image for head in data.heads(base.generator)]
    return torch.cat(pictures).clamp(-1, 1)

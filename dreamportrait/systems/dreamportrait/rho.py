"""Measure rho(t): how much of D-SDS is a pull to the mean of the generator's own pictures.

    measure(Request("mini", "mini/diffusion", "miniworld:validation"))

The generator is frozen. A fake score learns the latents of its pictures. rho(t) is then measured on other pictures, as
guidance/fake_score.py defines it. rho near 0 at every t: distribution matching has nothing to remove. rho of 1 or more:
the pull is the main force.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamportrait.core.config import Fake
from dreamportrait.data.dataset import Pictures
from dreamportrait.data.sources import open_pictures
from dreamportrait.guidance.fake_score import Fakes, FakeScore, Lesson, contraction_ratio, draw_lesson
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.systems.dreamportrait.generator import TextTo3D
from dreamportrait.systems.dreamportrait.subject import load_subject

TIMES = 10  # values of t, in the middle of as many equal parts of the schedule


@dataclass(frozen=True)
class Request:
    checkpoint: str  # as `dreamportrait evaluate` accepts it
    source: str  # of the diffusion model
    dataset: str  # whose captions and cameras are used
    latents: int = 1024  # that the fake score learns from
    held: int = 256  # other latents, on which rho is measured
    steps: int = 500
    batch: int = 16
    lr: float = Fake().lr
    rank: int | None = None  # of LoRA. None = a full copy of the UNet
    seed: int = 0


class Rho(NamedTuple):
    t: int
    rho: float
    pull: float  # E |eps_psi - eps|^2, the numerator, which is also the loss of the fake score
    gap: float  # E |eps_c - eps_psi|^2
    teacher: float  # E |eps_c - eps|^2, the loss of the frozen model


def measure(request: Request, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Fit a fake score to a frozen generator. Return rho at ten values of t and what shows how good the fit is."""
    torch.manual_seed(request.seed)
    subject = load_subject(request.checkpoint, device=device).subject
    assert isinstance(subject, TextTo3D)
    prior = load_stable_diffusion(request.source, device=device)
    pictures = open_pictures(request.dataset, count=request.latents + request.held)
    found = Fakes(*(torch.cat(each) for each in zip(*_latents(subject, prior, pictures, request), strict=True)))
    seen, held = (Fakes(*(x[rows] for x in found)) for rows in (slice(request.latents), slice(request.latents, None)))
    fake = FakeScore(prior, request.rank).to(device)
    lesson = draw_lesson(prior, len(held.latents))
    before = _ratios(fake, held, lesson)
    fit(fake, seen, request)
    steps = len(prior.alphas_cumprod)
    times = [round((i + 0.5) * steps / TIMES) for i in range(TIMES)]
    return {
        "request": vars(request),
        "before": before,
        "after": _ratios(fake, held, lesson),
        "rho": [rho(fake, held, t)._asdict() for t in times],
    }


def fit(fake: FakeScore, seen: Fakes, request: Request) -> None:
    """Train the fake score on latents of the frozen generator."""
    optimizer = torch.optim.Adam(fake.parameters(), lr=request.lr, betas=(0.9, 0.999))
    for _ in range(request.steps):
        optimizer.zero_grad(set_to_none=True)
        fake.loss(seen.some(request.batch), draw_lesson(fake.prior, request.batch)).backward()
        optimizer.step()


def rho(fake: FakeScore, fakes: Fakes, step: int, batch: int = 64) -> Rho:
    """Return rho at one step of the schedule."""
    sums: list[Tensor] = []
    for first in range(0, len(fakes.latents), batch):
        part = Fakes(*(x[first : first + batch] for x in fakes))
        t = torch.full((len(part.latents),), step, device=part.latents.device)
        noise = torch.randn(part.latents.shape).to(part.latents)
        pull, gap, teacher = contraction_ratio(fake, part, t, noise)
        sums.append(torch.stack([pull, gap, teacher], 1))  # [n, 3]
    top, bottom, loss = torch.cat(sums).mean(0).tolist()
    return Rho(step, top / bottom, top, bottom, loss)


@torch.no_grad()
def _latents(subject: TextTo3D, prior: StableDiffusion, pictures: Pictures, request: Request) -> Iterator[Fakes]:
    """Yield latents of generated pictures with captions and cameras of the data, in batches."""
    device = prior.alphas_cumprod.device
    count, config = request.latents + request.held, subject.config
    for first in range(0, count, request.batch):
        numbers = [i % len(pictures) for i in range(first, min(first + request.batch, count))]
        prompts, camera = [pictures.captions(i)[0] for i in numbers], pictures.cameras[numbers].to(device)
        z = torch.randn(len(numbers), config.z_dim).to(device)
        text = subject.encoder.encode(prompts).to(device)
        image = subject.generator(z, camera, text, noise="random", draws="random").image
        yield Fakes(prior.encode(image), prior.embed(prompts).to(device))


def _ratios(fake: FakeScore, held: Fakes, lesson: Lesson) -> dict[str, float]:
    return {name: float(value) for name, value in fake.monitors(held, lesson).items()}

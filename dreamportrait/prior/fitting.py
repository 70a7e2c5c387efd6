"""Trainings of a text prior, on vectors only: picture features -> w, and the flow. one_pass.py has its one-pass form.

Each training can be stopped and continued, and writes its log, into its own folder (training/loop.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.coupling import assign
from dreamportrait.prior.flow import TextFlow, flow_loss
from dreamportrait.prior.inversion import FeatureMap, Inverter
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema

RATE, WEIGHT_DECAY, AVERAGE = 1e-3, 0.01, 0.998
Net = TypeVar("Net", bound=nn.Module)
NOISE = 0.4  # added to standardised picture features in training, against learning renders by heart
HELD = 20  # one of so many samples is kept for testing
GROUP = 2  # batches whose seeds are assigned to pictures together


@dataclass(frozen=True)
class Pairs:
    """Coordinates of w of pictures, and text features of their captions. A picture has several of both."""

    x: Tensor  # [P, M, w_dim] draws, see residuals.py and content.py
    text: Tensor  # [P, K, Ct]
    noise: float = 0.0  # added to the text features in training, in their standard deviations

    def __post_init__(self) -> None:
        if not (self.x.isfinite().all() and self.text.isfinite().all()):
            raise ValueError("pairs of w and text contain NaN or infinite numbers; check the CLIP that reads both")

    def draw(self, count: int) -> tuple[Tensor, Tensor]:  # [count, w_dim], [count, Ct]
        """Draw pictures, each with one of its w and one of its captions."""
        chosen = torch.randint(len(self.x), (count,))
        x = self.x[chosen, torch.randint(self.x.shape[1], (count,))].float()
        text = self.text[chosen, torch.randint(self.text.shape[1], (count,))].float()
        return x, text + self.noise * self.deviation * torch.randn_like(text)

    @cached_property
    def deviation(self) -> Tensor:  # [Ct]
        return self.text.float().flatten(0, 1).std(0)


def fit_inverter(
    maps: tuple[FeatureMap, ...],
    features: Tensor,  # [N, F] of these maps
    x: Tensor,  # [N, w_dim]
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    noise: float = NOISE,
    signals: Signals | None = None,  # see training/loop.py
) -> tuple[Inverter, float]:
    """Train the network from picture features to coordinates. Return it with its relative error on unseen renders."""
    torch.manual_seed(seed)
    held = len(x) // HELD
    inverter = Inverter(maps, x.shape[1])
    inverter.standard.fit(features[held:].float())

    def loss() -> Tensor:
        chosen = torch.randint(held, len(x), (batch,))
        out: Tensor = inverter(features[chosen].float(), noise)
        return (out - x[chosen]).square().mean()

    average = train(inverter, loss, folder, steps=steps, seed=seed, title="picture to w", signals=signals).eval()
    with torch.no_grad():
        error = (average(features[:held].float()) - x[:held]).square().mean() / x[:held].var(0).mean()
    return average, float(error)


def fit_flow(
    flow: TextFlow,
    starts: Tensor,  # [N, w_dim] coordinates of the w of seeds
    pairs: Pairs,
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    coupling: float,  # weight of texts where seeds are assigned to pictures
    tell: Callable[[Tensor], Tensor] | None = None,  # what a w says; seeds go to pictures that also say the same
    signals: Signals | None = None,
) -> TextFlow:
    """Train the flow from the seeds' own coordinates to those of pictures, given their captions."""
    flow.standard.fit(pairs.text.flatten(0, 1).float())

    @torch.no_grad()
    def seen(x: Tensor) -> Tensor:
        return x if tell is None else torch.cat([x, tell(x)], 1)

    def loss() -> Tensor:
        # Seeds are assigned in groups larger than a batch: the more there are, the better they fit.
        group = GROUP * batch
        x0, (x1, text) = starts[torch.randint(len(starts), (group,))], pairs.draw(group)
        order = assign(seen(x0), seen(x1), flow.standard(text), coupling)[:batch]
        return flow_loss(flow, x0[order], x1[:batch], text[:batch])

    return train(flow, loss, folder, steps=steps, seed=seed, title="prior", signals=signals)


def train(
    net: Net,
    loss: Callable[[], Tensor],
    folder: Path,
    *,
    steps: int,
    seed: int,
    title: str,
    signals: Signals | None = None,
) -> Net:
    """Minimise a loss with AdamW and return the running average of the network."""
    average = Ema(net)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=WEIGHT_DECAY)

    def step(index: int) -> dict[str, Tensor]:
        set_lr(optimizer, cosine(index, steps, RATE))
        found = loss()
        optimizer.zero_grad(set_to_none=True)
        found.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update(net, min(AVERAGE, (index + 1) / (index + 10)))
        return {"loss": found}

    state: dict[str, Stateful] = {"net": net, "average": average, "optimizer": optimizer}
    every = max(1, steps // 8)
    fit(step, state, steps, folder, seed=seed, save_every=1000, log_every=every, title=title, signals=signals)
    found = average.module
    assert isinstance(found, type(net))
    return found

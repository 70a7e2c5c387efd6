"""The one-pass form of a text prior: from the seed's w to where the flow carries it, in one pass."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.fitting import HELD, train
from dreamportrait.prior.flow import TextFlow, transport
from dreamportrait.prior.gaussian import TextGaussian

Net = TypeVar("Net", bound=nn.Module)
_ROWS = 1024  # answers at once


@dataclass(frozen=True)
class Answers:
    """Where the flow carries starts, given texts: what its one-pass form learns."""

    start: Tensor  # [M, w_dim]
    text: Tensor  # [M, Ct]
    end: Tensor  # [M, w_dim]


@torch.no_grad()
def answers(
    flow: TextFlow,
    starts: Tensor,  # [N, w_dim]
    texts: Tensor,  # [T, Ct]
    null: Tensor,  # [E, Ct] features of prompts that say nothing
    count: int,
    *,
    steps: int,
    scale: float,
    seed: int,
    silent: float = 0.06,  # share of answers to prompts that say nothing: they leave the start as it is
    gaussian: TextGaussian | None = None,  # None = guidance alone
    stay: float = 0.0,  # weight of the Gaussian
    report: Callable[[int], object] = lambda done: None,
) -> Answers:
    """Let the flow answer `count` random starts and texts."""
    draw = torch.Generator().manual_seed(seed)
    start = starts[torch.randint(len(starts), (count,), generator=draw)]
    text = texts[torch.randint(len(texts), (count,), generator=draw)]
    ends = []
    for x, said in zip(start.split(_ROWS), text.float().split(_ROWS), strict=True):
        anchor = None if gaussian is None else gaussian.carried(x, flow.standard(said))
        ends.append(transport(flow, x, said, steps, scale, anchor, stay))
        report(len(x))
    end, quiet = torch.cat(ends), torch.rand(count, generator=draw) < silent
    nothing = null[torch.randint(len(null), (count,), generator=draw)]
    text, end = torch.where(quiet[:, None], nothing.to(text), text), torch.where(quiet[:, None], start, end)
    return Answers(start, text, end)


def fit_one_pass(
    net: Net,  # (x [B, w_dim], text [B, Ct]) -> offset [B, w_dim]
    known: Answers,
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
) -> tuple[Net, float]:
    """Train a network to give the end of the flow in one pass.

    Return its running average, and the mean squared error of that on unseen starts.
    """
    held = len(known.start) // HELD

    def error(net: Net, chosen: Tensor | slice) -> Tensor:
        moved = known.start[chosen] + net(known.start[chosen], known.text[chosen].float())
        return (moved - known.end[chosen]).square().mean()

    def loss() -> Tensor:
        return error(net, torch.randint(held, len(known.start), (batch,)))

    average = train(net, loss, folder, steps=steps, seed=seed, title="one pass", signals=signals)
    with torch.no_grad():
        return average, float(error(average, slice(held)))

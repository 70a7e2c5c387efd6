"""The one-pass form of a text prior: from the seed's w to where the flow carries it, in one pass.

A flow with weak guidance leaves much of what the text does not mention as the seed has it, but not every face shows
what the text says. Strong guidance mends this and makes all faces of a text alike. So the one pass learns the ends of a
flow with weak guidance, and listens beside it:

    here      meaning
    x0, x     coordinates of the seed's w, and of the new one
    end       where the flow carries x0
    told(x)   code of what is seen in the face of x (matcher.py), by a network that was trained on renders
    p         probability of the text among those of the batch, given a code

    energy = |x - end|^2 / 2 - listen log p(text | told(x)) + keep |told(x) - told(x0)|^2 / 2

The second term moves what the text says, the third one holds what is seen otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.content import Teller
from dreamportrait.prior.fitting import HELD, train
from dreamportrait.prior.flow import TextFlow, transport
from dreamportrait.prior.matcher import Matcher

Net = TypeVar("Net", bound=nn.Module)
WIDTH = 1024  # of the hidden layers of the network that tells codes


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
    report: Callable[[int], object] = lambda done: None,
) -> Answers:
    """Let the flow answer `count` random starts and texts."""
    draw = torch.Generator().manual_seed(seed)
    start = starts[torch.randint(len(starts), (count,), generator=draw)]
    text = texts[torch.randint(len(texts), (count,), generator=draw)]
    ends = []
    for x, said in zip(start.split(4096), text.split(4096), strict=True):
        ends.append(transport(flow, x, said.float(), steps, scale))
        report(len(x))
    end, quiet = torch.cat(ends), torch.rand(count, generator=draw) < silent
    nothing = null[torch.randint(len(null), (count,), generator=draw)]
    text, end = torch.where(quiet[:, None], nothing.to(text), text), torch.where(quiet[:, None], start, end)
    return Answers(start, text, end)


@dataclass(frozen=True)
class Listening:
    """The second and third terms of the energy."""

    matcher: Matcher
    told: Teller  # from coordinates of w to codes
    listen: float
    keep: float

    def __call__(self, x: Tensor, start: Tensor, text: Tensor, quiet: Tensor) -> Tensor:
        """Return the sum of the terms, a mean over rows. Rows that are quiet [N] have a text that says nothing."""
        code = self.told(x)  # [N, code]
        with torch.no_grad():
            before = self.told(start)
        said = ~quiet
        scores = self.matcher(code[said], text[said])  # [S, S]
        unheard = F.cross_entropy(scores, torch.arange(len(scores)), reduction="sum") / len(x)
        return self.listen * unheard + self.keep * (code - before).square().sum(1).mean() / 2


def fit_one_pass(
    net: Net,  # (x [B, w_dim], text [B, Ct]) -> offset [B, w_dim]
    known: Answers,
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    listening: Listening | None = None,  # None = learn the ends alone
    title: str = "one pass",
    signals: Signals | None = None,
) -> tuple[Net, float]:
    """Train a network to give the end of the flow in one pass, and to listen.

    Return its running average, and the mean squared distance of that to the flow's ends on unseen starts.
    """
    held, quiet = len(known.start) // HELD, (known.start == known.end).all(1)

    def moved(net: Net, chosen: Tensor | slice) -> Tensor:
        out: Tensor = known.start[chosen] + net(known.start[chosen], known.text[chosen].float())
        return out

    def loss() -> Tensor:
        chosen = torch.randint(held, len(known.start), (batch,))
        x = moved(net, chosen)
        apart = (x - known.end[chosen]).square().mean()
        if listening is None:
            return apart
        # The energy, divided by half the number of coordinates.
        heard = listening(x, known.start[chosen], known.text[chosen].float(), quiet[chosen])
        return apart + 2 * heard / x.shape[1]

    average = train(net, loss, folder, steps=steps, seed=seed, title=title, signals=signals)
    with torch.no_grad():
        return average, float((moved(average, slice(held)) - known.end[:held]).square().mean())

"""Draws of w that say what the picture says.

A draw around the guess of a picture's w loses some of what the picture's captions name: one pair of glasses in six. A
flow that learns from such pairs hears "glasses" and often sees none, and only strong guidance makes up for it, which
costs variety. Two networks find out what is lost, without any label but the captions:

    reader    from a picture to the mean of its captions' features, learnt from the data set
    teller    from w to what the reader reads in the picture of w, learnt from the renders

Draws whose teller agrees with the picture's reader are preferred, and then moved until they agree, but no further.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dreamportrait.core.machine import autocast
from dreamportrait.core.signals import Signals
from dreamportrait.prior.fitting import HELD, train
from dreamportrait.prior.inversion import FeatureMap, Inverter
from dreamportrait.prior.network import perceptron
from dreamportrait.prior.residuals import Guesses
from dreamportrait.prior.space import WSpace

KEPT = 4  # draws for each picture
_STEPS, _RATE = 20, 0.1  # of Adam, in coordinates of w
_ROWS = 512  # pictures at once
NOISE = 0.15  # added to standardised picture features; more would hide what is small, such as eyes


@dataclass(frozen=True)
class Reader:
    """Reads what captions would say of a picture, in coordinates whose common differences have length 1."""

    net: Inverter
    space: WSpace

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:  # [N, F] of pictures -> [N, Ct]
        return torch.cat([self.space.enter(self.net(part.float())) for part in features.split(_ROWS)])


class Teller(nn.Module):
    """Tell from coordinates of w what the reader reads in its picture."""

    def __init__(self, w_dim: int, content: int, width: int = 512, dropout: float = 0.05) -> None:
        super().__init__()
        self.net = perceptron(w_dim, content, width, dropout)

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Teller":
        """Build the network whose weights these are, in eval mode."""
        first, last = tensors["net.0.weight"], tensors["net.6.weight"]
        made = cls(first.shape[1], last.shape[0], first.shape[0])
        made.load_state_dict(tensors)
        return made.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:  # [N, w_dim] -> [N, Ct]
        out: Tensor = self.net(x)
        return out


def fit_reader(
    maps: tuple[FeatureMap, ...],
    features: Tensor,  # [P, F] of pictures, by these maps
    text: Tensor,  # [P, K, Ct] features of their captions
    renders: Tensor,  # [N, F] features of renders, which are read in the same coordinates
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
) -> tuple[Reader, float]:
    """Train the reader. Return it with the share of variance that it leaves unexplained on unseen pictures.

    A caption names a part of what can be said, so this share cannot be zero. What captions rarely name varies little
    in their features; in coordinates where common differences have length 1, it counts as much as the rest.
    """
    torch.manual_seed(seed)
    held, heard = max(2, len(text) // HELD), WSpace(text.shape[2]).fit(text.flatten(0, 1).float())
    said = torch.stack([heard.enter(each.float()) for each in text.unbind(1)]).mean(0)  # [P, Ct]
    net = Inverter(maps, said.shape[1])
    net.standard.fit(features[held:].float())

    def loss() -> Tensor:
        chosen = torch.randint(held, len(said), (batch,))
        out: Tensor = net(features[chosen].float(), NOISE)
        return (out - said[chosen]).square().mean()

    net = train(net, loss, folder, steps=steps, seed=seed, title="what pictures say", signals=signals).eval()
    space = WSpace(said.shape[1])
    found, others = (Reader(net, space)(each) for each in (features, renders))
    error = (found[:held] - said[:held]).square().mean() / said[:held].var(0).mean()
    return Reader(net, space.fit(torch.cat([found, others]))), float(error)


def fit_teller(
    x: Tensor,  # [N, w_dim] coordinates of the renders
    content: Tensor,  # [N, Ct] read in their pictures
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
) -> tuple[Teller, float]:
    """Train the teller. Return it with the share of variance that it leaves unexplained on unseen renders."""
    torch.manual_seed(seed)
    held = max(2, len(x) // HELD)
    teller = Teller(x.shape[1], content.shape[1])

    def loss() -> Tensor:
        chosen = torch.randint(held, len(x), (batch,))
        return (teller(x[chosen]) - content[chosen]).square().mean()

    teller = train(teller, loss, folder, steps=steps, seed=seed, title="what w says", signals=signals).eval()
    teller.requires_grad_(False)
    with torch.no_grad():
        error = (teller(x[:held]) - content[:held]).square().mean() / content[:held].var(0).mean()
    return teller, float(error)


def draws(teller: Teller, guess: Tensor, known: Guesses, content: Tensor) -> Tensor:  # [P, w_dim] -> [P, KEPT, w_dim]
    """Return draws around the guesses for pictures that say what the reader reads in them. content: [P, Ct]."""
    parts = zip(guess.split(_ROWS), content.split(_ROWS), strict=True)
    return torch.cat([moved(teller, chosen(teller, x, known, c), c) for x, c in parts])


@torch.no_grad()
def chosen(teller: Teller, guess: Tensor, known: Guesses, content: Tensor) -> Tensor:  # [P, w_dim] -> [P, KEPT, w_dim]
    """Return the draws that agree best with the content [P, Ct], of all possible ones."""
    x = guess[:, None] + known.error[known.like(guess)]  # [P, M, w_dim]
    apart = (teller(x) - content[:, None]).square().mean(2)  # [P, M]
    best = apart.topk(min(KEPT, x.shape[1]), largest=False).indices
    return x.gather(1, best[:, :, None].expand(-1, -1, x.shape[2]))


def moved(teller: Teller, start: Tensor, content: Tensor) -> Tensor:  # [P, M, w_dim], [P, Ct] -> [P, M, w_dim]
    """Descend the squared distance to the content plus that to the start."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], _RATE)
    for _ in range(_STEPS):
        with autocast(x.device):
            told = teller(x).float()
        loss = (told - content[:, None]).square().sum() + (x - start).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x.detach()

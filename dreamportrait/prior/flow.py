"""The prior: a flow that carries the seed's own w to a w that shows the text.

    here      meaning
    x0        coordinates of the seed's w, independent of the text
    x1        coordinates of the w of a picture
    text      features of a caption of that picture
    x_t       (1 - t) x0 + t x1
    v         velocity dx/dt; its regression target is x1 - x0 (flow matching)
    scale     v = null + scale * (v with text - null), classifier-free guidance
    anchor    where the seed would be carried if the w of each text were Gaussian (gaussian.py)
    stay      v - stay (x_t + (1 - t) v - anchor): what the flow is heading for is drawn to the anchor

Because the flow starts at the seed's w and not at noise, what the text does not mention stays similar.
"""

import math

import torch
from torch import Tensor, nn

from dreamportrait.prior.network import ConditionedNet, Standard

TIMES = 16  # pairs of sine and cosine
DROPPED = 0.12  # share of samples without text
DRAWN = 0.8  # Up to this time the flow is drawn. Then it is alone, so that faces return to where it has seen some.


class TextFlow(nn.Module):
    def __init__(self, w_dim: int, text_width: int, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.standard = Standard(text_width)
        self.null = nn.Parameter(torch.zeros(text_width))
        self.net = ConditionedNet(w_dim, 2 * TIMES + text_width, width, blocks)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, told: Tensor) -> Tensor:
        """Return the velocity [N, w_dim].

        x is [N, w_dim], t [N], text [N, Ct], told [N] (False: without text).
        """
        heard = torch.where(told[:, None], self.standard(text), self.null)
        out: Tensor = self.net(x, torch.cat([waves(t), heard], 1))
        return out


def waves(t: Tensor) -> Tensor:  # [N] in 0 .. 1 -> [N, 2 TIMES]
    """Return sines and cosines of t with frequencies from a half to 2^7 periods."""
    frequencies = math.pi * 2 ** torch.linspace(0, 8, TIMES, device=t.device)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def flow_loss(flow: TextFlow, x0: Tensor, x1: Tensor, text: Tensor) -> Tensor:
    """Return the mean squared error of the velocity at random times, a share of the samples without text."""
    n = len(x0)
    t, told = torch.rand(n).to(x0), (torch.rand(n) >= DROPPED).to(x0.device)
    x = x0.lerp(x1, t[:, None])
    return (flow(x, t, text, told) - (x1 - x0)).square().mean()


@torch.no_grad()
def transport(
    flow: TextFlow,
    x0: Tensor,  # [N, w_dim]
    text: Tensor,  # [N, Ct]
    steps: int,
    scale: float,
    anchor: Tensor | None = None,  # [N, w_dim]
    stay: float = 0.0,
) -> Tensor:  # [N, w_dim]
    """Follow the guided velocity from x0 in equal Euler steps. Return the end."""
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    n, x = len(x0), x0
    both = torch.arange(2 * n, device=x.device) < n  # first with text, then without
    twice = text.repeat(2, 1)
    for i in range(steps):
        t = torch.full((2 * n,), i / steps, device=x.device)
        told, null = flow(x.repeat(2, 1), t, twice, both).chunk(2)
        v = null + scale * (told - null)
        if anchor is not None and i < DRAWN * steps:
            v = v - stay * (x + (1 - i / steps) * v - anchor)
        x = x + v / steps
    return x

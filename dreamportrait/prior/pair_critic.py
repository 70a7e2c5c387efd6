"""A critic of pairs of w and text, which teaches a mapper without rendering.

    real         w of pictures of the text prior, each with a caption of its picture
    fake         w that the mapper gives for seeds and for these captions
    mismatched   real w with captions of other pictures

The critic learns to tell real pairs from the others, the mapper learns to deceive it. So w stays where those of faces
lie, and shows its text. Because a pair is two short vectors, every picture of a batch can have several of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamportrait.prior.fitting import Pairs
from dreamportrait.prior.network import Standard
from dreamportrait.training.losses import discriminator_loss, generator_loss, mismatch_loss
from dreamportrait.training.resting import resting

R1 = 0.1  # weight of the squared gradient at real w; with 0.02 the critic learns 8000 faces by heart


class PairCritic(nn.Module):
    """Judge whether coordinates of w belong to a face that a text describes. The logits are zero at initialisation."""

    def __init__(self, w_dim: int, text_width: int, width: int = 256) -> None:
        super().__init__()
        self.standard = Standard(text_width)
        self.person = nn.Sequential(nn.Linear(w_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.said = nn.Sequential(nn.Linear(text_width, width), nn.SiLU(), nn.Linear(width, width))
        # Reads the person alone, too: whether this is a face at all does not depend on the text.
        self.joint = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))
        last = self.joint[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> logits [N, 1]
        person = self.person(x)  # [N, width]
        out: Tensor = self.joint(torch.cat([person, person * self.said(self.standard(text))], 1))
        return out


class Drawn(NamedTuple):
    """Real pairs, and the mapper's answers to their texts."""

    real: Tensor  # [M, w_dim] coordinates
    text: Tensor  # [M, Ct]
    fake: Tensor  # [M, w_dim] coordinates


class PairGame:
    """The pairs of a text prior with their critic, and the losses of both sides."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.critic = PairCritic(pairs.x.shape[-1], pairs.text.shape[-1])
        self.critic.standard.fit(pairs.text.flatten(0, 1).float())

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:  # [count, w_dim], [count, Ct]
        """Draw real pairs. They are drawn on the CPU, which makes them the same on every device."""
        x, text = self.pairs.draw(count)
        return x.to(device), text.to(device)

    def mapper_loss(self, drawn: Drawn) -> Tensor:  # []
        """Return the loss of answers that do not deceive the critic, whose weights get no gradient."""
        with resting(self.critic):
            return generator_loss(self.critic(drawn.fake, drawn.text))

    def critic_loss(self, drawn: Drawn) -> Tensor:  # []
        """Return the adversarial loss, the loss of mismatched captions and the R1 penalty."""
        real = drawn.real.detach().requires_grad_()
        logits = self.critic(real, drawn.text)
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        loss = discriminator_loss(logits, self.critic(drawn.fake.detach(), drawn.text))
        loss = loss + mismatch_loss(self.critic(drawn.real, drawn.text.roll(1, 0)))
        return loss + R1 / 2 * slope.square().sum(1).mean()

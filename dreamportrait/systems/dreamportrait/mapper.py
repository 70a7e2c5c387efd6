"""The semantics mapper (the global path): the prompt as a whole changes w, and thereby every convolution."""

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.conv import normalize_2nd_moment
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.prior.flow import TextFlow, transport
from dreamportrait.prior.network import ConditionedNet, Standard
from dreamportrait.prior.space import WSpace
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig

LRELU_GAIN = 2**0.5  # with which layers follow leaky ReLU
REACH = 10.0  # A coordinate of w is hardly ever below -REACH: those of mini/eg3d are within 8, their deviation is 0.8.


class SemanticsMapper(nn.Module):
    """Map a style w and the prompt's features to a new w: two layers for each, and one that fuses them.

    This is M in section 3.2 of the paper.

    Unless `plain`, it differs from the paper in three ways:
    - Its output is an offset that is added to w. The offset is zero at initialisation.
    - The offset is in standard deviations of w: w varies along few directions, and changes along others break faces.
    - It also fuses the product of text and style: a sum of the two cannot change only what the text mentions.

    The paper does not say how M starts. Either form returns w at initialisation: from a new w the pretrained generator
    draws no face, and a short training does not recover from that.
    """

    spread: Tensor

    def __init__(self, w_dim: int, text_width: int, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain
        self.text0 = FullyConnected(text_width, w_dim, activation="lrelu")
        self.text1 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.style0 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.style1 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.fuse = FullyConnected((2 if plain else 3) * w_dim, w_dim)
        nn.init.zeros_(self.fuse.weight)
        if plain:
            self._pass_style_through(w_dim)
        else:
            # The square root of the covariance of w. Checkpoints contain this name.
            self.register_buffer("spread", torch.zeros(w_dim, w_dim).fill_diagonal_(1))

    @torch.no_grad()
    def _pass_style_through(self, w_dim: int) -> None:
        """Initialise the layers so that they return w. Its coordinates are shifted to where leaky ReLU is linear."""
        for layer in (self.style0, self.style1):
            layer.weight.zero_().fill_diagonal_(1 / (LRELU_GAIN * layer.weight_gain))
        self.style0.bias.fill_(REACH / self.style0.bias_gain)
        self.fuse.weight[:, w_dim:].fill_diagonal_(1 / self.fuse.weight_gain)
        self.fuse.bias.fill_(-LRELU_GAIN * REACH / self.fuse.bias_gain)

    def forward(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        offset = self.offset(w, eot)
        return offset if self.plain else w + offset @ self.spread

    def offset(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """Return the offset of w in standard deviations; for a plain mapper, the new w."""
        text = self.text1(self.text0(normalize_2nd_moment(eot.to(w.dtype))))
        style = self.style1(self.style0(w))
        fused: Tensor = self.fuse(torch.cat([text, style] if self.plain else [text, style, text * style], 1))
        return fused


class PriorMapper(nn.Module):
    """A deeper mapper that holds a text prior in W (prior.py): a flow of many passes, and its one-pass form.

    One pass is a residual network on coordinates of W, conditioned by the standardised features of the prompt. Its
    output is an offset that is added to w, and is zero at initialisation. Offsets are measured in the standard
    deviations of the generator's own w (prior/space.py).
    """

    plain = False

    def __init__(self, w_dim: int, text_width: int, width: int, blocks: int) -> None:
        super().__init__()
        self.space, self.standard = WSpace(w_dim), Standard(text_width)
        self.net = ConditionedNet(w_dim, text_width, width, blocks)
        self.flow = TextFlow(w_dim, text_width).requires_grad_(False)

    def forward(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        return w + self.space.step(self.offset(w, eot))

    def offset(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """Return the offset of w in standard deviations."""
        x, text = self.space.enter(w), eot.to(w.dtype)
        out: Tensor = self.net(x, self.standard(text))
        return out

    def follow(self, w: Tensor, eot: Tensor, steps: int, scale: float) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """Return the new w by many steps of the flow, with its guidance, instead of one pass."""
        return self.space.leave(transport(self.flow, self.space.enter(w), eot.to(w.dtype), steps, scale))


def make_mapper(c: ConditioningConfig, w_dim: int) -> SemanticsMapper | PriorMapper | None:
    """Make the mapper that the configuration asks for. None = without a global path."""
    if not c.global_path:
        return None
    if c.mapper_blocks:
        return PriorMapper(w_dim, c.text_width, c.mapper_width, c.mapper_blocks)
    return SemanticsMapper(w_dim, c.text_width, c.plain_mapper)

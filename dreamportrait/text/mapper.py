"""The global path: the whole prompt changes w, and so every convolution of the generator."""

import torch
from torch import Tensor, nn

from dreamportrait.generator.conv import normalize_2nd_moment
from dreamportrait.generator.layers import FullyConnected


class SemanticsMapper(nn.Module):
    """Two layers read the text, two the style, one fuses them (the paper's M, section 3.2).

    Unless `plain`, it goes beyond the paper in three ways. What it says is added to w, at first nothing. It is said in
    units of how w varies from face to face, for w fills but a few of its dimensions, and faces fall apart between them.
    And products are fused too: a sum of what is read from both cannot exchange just what the text speaks of.
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
        if not plain:
            nn.init.zeros_(self.fuse.weight)
            self.register_buffer("spread", torch.eye(w_dim))  # the square root of the covariance of w

    def forward(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        said = self.say(w, eot)
        return said if self.plain else w + said @ self.spread

    def say(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """How far to move w, in standard deviations; of a plain one, where to."""
        text = self.text1(self.text0(normalize_2nd_moment(eot.to(w.dtype))))
        style = self.style1(self.style0(w))
        said: Tensor = self.fuse(torch.cat([text, style] if self.plain else [text, style, text * style], 1))
        return said

"""The global path: the whole prompt changes w, and so every convolution of the generator."""

import torch
from torch import Tensor, nn

from dreamportrait.generator.conv import normalize_2nd_moment
from dreamportrait.generator.layers import FullyConnected


class SemanticsMapper(nn.Module):
    """Two layers read the text, two the style, one fuses them (the paper's M, section 3.2)."""

    def __init__(
        self,
        w_dim: int,
        text_width: int,
        plain: bool = False,  # True: the result is the last layer's; False: w plus it, and it starts at zero
    ) -> None:
        super().__init__()
        self.plain = plain
        self.text0 = FullyConnected(text_width, w_dim, activation="lrelu")
        self.text1 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.style0 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.style1 = FullyConnected(w_dim, w_dim, activation="lrelu")
        self.fuse = FullyConnected(2 * w_dim, w_dim)
        if not plain:
            nn.init.zeros_(self.fuse.weight)

    def forward(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        text = self.text1(self.text0(normalize_2nd_moment(eot.to(w.dtype))))
        style = self.style1(self.style0(w))
        fused: Tensor = self.fuse(torch.cat([text, style], 1))
        return fused if self.plain else w + fused

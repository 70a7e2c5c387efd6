"""The semantics mapper, the global path: the whole prompt changes w, and with it every convolution."""

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.conv import normalize_2nd_moment
from dreamportrait.eg3d.layers import FullyConnected


class SemanticsMapper(nn.Module):
    """Two layers on the text, two on the style, one that fuses them (the paper's M, section 3.2).

    Unless `plain`, it differs from the paper in three ways:
    - Its output is an offset that is added to w, and zero at first.
    - The offset is in standard deviations of w: w varies along few of its directions, and faces break along the others.
    - It also fuses the product of text and style: a sum of both cannot change only what the text mentions.
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
            self.register_buffer(
                "spread", torch.eye(w_dim)
            )  # the square root of the covariance of w; its name is in checkpoints

    def forward(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        offset = self.offset(w, eot)
        return offset if self.plain else w + offset @ self.spread

    def offset(self, w: Tensor, eot: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """Return the offset of w in standard deviations; for a plain mapper, the new w."""
        text = self.text1(self.text0(normalize_2nd_moment(eot.to(w.dtype))))
        style = self.style1(self.style0(w))
        fused: Tensor = self.fuse(torch.cat([text, style] if self.plain else [text, style, text * style], 1))
        return fused

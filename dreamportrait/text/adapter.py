"""The local path: between two blocks of the backbone, places of the three planes attend to words (section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.generator.layers import Conv, FullyConnected
from dreamportrait.text.pooling import aggregate, without_space
from eg3d_ops.planes import PlaneAxes


class GatedCrossAttention(nn.Module):
    """x + beta tanh(gamma) attention(places of x, words) (equation 3); at the start, x.

    The backbone's C channels are no planes yet: a 1x1 convolution reads d = token_dim of each plane from them, and
    another one writes what was attended to back. Heads mix in the latter, so attention has no output layer of its own.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        axes: PlaneAxes,
        token_dim: int = 64,
        heads: int = 4,
        pooling: bool = True,
        gated: bool = True,  # False: x + attention, with its last layer at zero in the beginning
    ) -> None:
        super().__init__()
        if len(axes) != 3:
            raise ValueError(f"axes={axes}: adapters need three planes")
        self.axes, self.token_dim, self.heads, self.pooling, self.gated = axes, token_dim, heads, pooling, gated
        self.read = Conv(channels, 3 * token_dim, 1)
        self.query = FullyConnected(3 * token_dim, token_dim)
        self.key = FullyConnected(text_width, token_dim)
        self.value = FullyConnected(text_width, token_dim)
        self.write = Conv(3 * token_dim, channels, 1)
        if gated:
            self.beta = nn.Parameter(torch.ones([]))
            self.gamma = nn.Parameter(torch.zeros([]))
        else:
            nn.init.zeros_(self.write.weight)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:  # [N, C, H, W], [N, L, Ct], [N, L]
        features = self.write(self.attend(self.read(x), words.to(x.dtype), mask))
        gate = (self.beta * self.gamma.tanh()).to(x.dtype) if self.gated else 1
        return x + gate * features

    def attend(self, planes: Tensor, words: Tensor, mask: Tensor) -> Tensor:  # [N, 3d, H, W] -> [N, 3d, H, W]
        n, _, height, width = planes.shape
        planes = planes.unflatten(1, (3, self.token_dim))  # [N, 3, d, H, W]
        seen = aggregate(planes, self.axes) if self.pooling else without_space(planes)  # [N, 3, 3d, H, W]
        tokens = seen.permute(0, 1, 3, 4, 2).flatten(1, 3)  # [N, 3HW, 3d]
        tokens = F.layer_norm(tokens, tokens.shape[-1:])  # features grow in training; attention should not sharpen so
        q, k, v = (self._split(y) for y in (self.query(tokens), self.key(words), self.value(words)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # [N, heads, 3HW, d / heads]
        out = out.transpose(1, 2).reshape(n, 3, height, width, self.token_dim)
        return out.permute(0, 1, 4, 2, 3).flatten(1, 2)  # [N, 3d, H, W]

    def _split(self, x: Tensor) -> Tensor:  # [N, T, d] -> [N, heads, T, d / heads]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

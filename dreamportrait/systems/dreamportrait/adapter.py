"""The local path: between two blocks of the backbone, the cells of the three planes attend to words (section 3.3)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.systems.dreamportrait.pooling import columns, same_pixels
from eg3d_ops.planes import PlaneAxes


class GatedCrossAttention(nn.Module):
    """Compute x + beta tanh(gamma) attention(cells of x, words) (equation 3). At initialisation the result is x.

    The backbone's C channels are not split into planes yet: `read` maps them to d = token_dim channels for each plane,
    and `write` maps the attention's output back. `write` also mixes the heads, so attention has no output layer.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        axes: PlaneAxes,
        token_dim: int = 64,
        heads: int = 4,
        pooling: bool = True,
        gated: bool = True,  # False: x + attention, whose last layer is zero at initialisation
    ) -> None:
        super().__init__()
        if len(axes) != 3:
            raise ValueError(f"axes={axes}: adapters need three planes")
        self.axes, self.token_dim, self.heads, self.pooling, self.gated = axes, token_dim, heads, pooling, gated
        self.read = FullyConnected(channels, 3 * token_dim)
        self.query = FullyConnected(3 * token_dim, token_dim)
        self.key = FullyConnected(text_width, token_dim)
        self.value = FullyConnected(text_width, token_dim)
        self.write = FullyConnected(3 * token_dim, channels)
        if gated:
            self.beta = nn.Parameter(torch.ones([]))
            self.gamma = nn.Parameter(torch.zeros([]))
        else:
            nn.init.zeros_(self.write.weight)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:  # [N, C, H, W], [N, L, Ct], [N, L]
        words = words.to(x.dtype)
        planes = rearrange(self.read(rearrange(x, "n c h w -> n h w c")), "n h w (p d) -> p n h w d", p=3)
        parts = self._tokens(tuple(planes)), self.key(words), self.value(words)  # [N, 3HW, d], [N, L, d], [N, L, d]
        q, k, v = (rearrange(y, "n t (heads d) -> n heads t d", heads=self.heads) for y in parts)
        out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None])  # [N, heads, 3HW, d / heads]
        cells = rearrange(out, "n heads (p h w) d -> n h w (p heads d)", p=3, h=x.shape[2])
        features = rearrange(self.write(cells), "n h w c -> n c h w")
        if self.gated:
            return torch.addcmul(x, features, (self.beta * self.gamma.tanh()).to(x.dtype))
        return x + features

    def _tokens(self, planes: tuple[Tensor, ...]) -> Tensor:  # [N, H, W, d] each -> [N, 3HW, d]
        """Return the queries: a linear map of each cell and the pooled features of the other planes.

        The map is applied to pooled columns before they are broadcast over the plane. Its inputs are normalised,
        because features grow in training, and because a mean is smaller than the values that it averages.
        """
        others = columns(planes, self.axes) if self.pooling else same_pixels(planes)
        weight, bias = (part.to(planes[0].dtype) for part in self.query.scaled())
        own, first, second = weight.split(self.token_dim, 1)  # [d, d] each
        tokens = [
            F.linear(_normalise(cell), own, bias) + (F.linear(_normalise(a), first) + F.linear(_normalise(b), second))
            for cell, (a, b) in zip(planes, others, strict=True)
        ]
        return rearrange(tokens, "p n h w d -> n (p h w) d")


def _normalise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])

"""The image-to-triplane network H: a frontal picture becomes tri-planes.

It predicts p_bar + s * H'(picture), with the mean p_bar and the deviation s of the planes of many heads: planes are
loud, so that the network learns differences from the mean, in units of their spread. With around="guess" they are
differences from other planes, which generator.py puts in the place of p_bar.

    here           paper
    encoder        E, the style encoder
    code           w_s, the spatial style code
    layers         the SMLs, one for each resolution from 4 to that of the planes
"""

from typing import NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamportrait.eg3d.layers import normal
from dreamportrait.systems.freestyle.config import COARSEST, I2TConfig
from dreamportrait.systems.freestyle.encoder import StyleEncoder
from dreamportrait.systems.freestyle.modulation import ModulationLayer
from eg3d_ops._checks import check_shape, check_tensor

OFFSET = "offset"


class Prediction(NamedTuple):
    planes: Tensor  # [N, P, C, H, W]
    w: Tensor  # [N, w_dim] a guess, for super-resolution
    code: Tensor  # [N, c, k, k]


class ImageToTriplane(nn.Module):
    mean_planes: Tensor  # [P, C, H, W] p_bar
    deviation: Tensor  # [P, C, 1, 1] s
    offset: Tensor | None  # [P, C, H, W] what a style adds to the planes of every picture, in units of s

    def __init__(self, config: I2TConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = StyleEncoder(c)
        self.const = nn.Parameter(normal(c.channels(COARSEST), COARSEST, COARSEST))
        self.layers = nn.ModuleDict()
        for r in c.resolutions:
            before = 0 if r == COARSEST else c.channels(r // 2)
            outputs = c.num_planes * c.plane_channels
            self.layers[str(r)] = ModulationLayer(before, c.channels(r), r, outputs, c.code_channels, c.modulation)
        if c.around == "guess":  # begin with the generator's planes of the guess
            for layer in self.layers.values():
                nn.init.zeros_(cast(ModulationLayer, layer).to_planes.weight)
        shape = c.num_planes, c.plane_channels
        self.register_buffer("mean_planes", torch.zeros(*shape, c.plane_resolution, c.plane_resolution))
        self.register_buffer("deviation", torch.ones(*shape, 1, 1))
        self.register_buffer(OFFSET, None)  # it comes with a style

    def forward(self, front: Tensor) -> Prediction:  # [N, 3, R, R] in -1 .. 1
        code, w = self.encode(front)
        return Prediction(self.decode(code), w, code)

    def encode(self, front: Tensor) -> tuple[Tensor, Tensor]:  # -> [N, c, k, k], [N, w_dim]
        """Return the style code of a frontal picture and the guess of its w."""
        size = self.config.image_resolution
        check_shape("front", check_tensor("front", front), [len(front), 3, size, size], "[N, 3, R, R] of the generator")
        # In one memory layout, so that the same picture gives the same numbers, whether it was rendered or read.
        code, w = self.encoder(front.contiguous())
        return code, w

    def decode(self, code: Tensor) -> Tensor:  # [N, c, k, k] -> [N, P, C, H, W]
        """Return the planes of a style code."""
        return self.mean_planes + self.deviation * self.difference(code)

    def difference(self, code: Tensor) -> Tensor:  # [N, c, k, k] -> [N, P, C, H, W]
        """Return H', the difference from the mean planes in units of their spread."""
        x, planes = self.const.expand(len(code), -1, -1, -1), None
        for layer in self.layers.values():
            x, planes = layer(x, planes, code)
        assert planes is not None
        made = rearrange(planes, "n (p c) h w -> n p c h w", p=self.config.num_planes)
        return made if self.offset is None else made + self.offset

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:  # [P, C, H, W], [P, C]
        """Set p_bar and s. A channel that never changes gets the deviation 1, so that nothing is divided by zero."""
        self.mean_planes.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation))[..., None, None])

"""Spatial modulation layers (SML): the style code scales and shifts features at every position (eq. 3 of the paper)."""

import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.eg3d.layers import Conv
from dreamportrait.systems.freestyle.config import Kind
from eg3d_ops import bias_act, setup_filter, upsample2d

EPSILON = 1e-5


# Eq. 3: F <- gamma_i(w_s) * (F - mu) / sigma + beta_i(w_s).
def modulated(features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:  # [N, C, H, W] each; gamma, beta: C or 1
    """Normalise features over the channels of each position, scale them by gamma and shift them by beta."""
    mean = features.mean(1, keepdim=True)  # [N, 1, H, W]
    variance = features.var(1, correction=0, keepdim=True)  # [N, 1, H, W]
    return gamma * (features - mean) * (variance + EPSILON).rsqrt() + beta


class Modulation(nn.Module):
    """Compute gamma and beta of a layer from the style code."""

    def __init__(self, code_channels: int, channels: int, resolution: int, kind: Kind) -> None:
        super().__init__()
        self.resolution = resolution
        self.hidden = Conv(code_channels, code_channels, 3, activation="lrelu")
        self.out = Conv(code_channels, 2 * (channels if kind == "full" else 1), 1)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:  # [N, c, k, k] -> [N, C or 1, H, W] x 2
        gamma, beta = self.out(resized(self.hidden(code), self.resolution)).chunk(2, 1)
        return 1 + gamma, beta


def resized(x: Tensor, size: int) -> Tensor:  # [N, C, h, h] -> [N, C, size, size]
    """Average areas to make a map smaller, interpolate bilinearly to make it larger."""
    if size <= x.shape[2]:
        return x if size == x.shape[2] else F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


class ModulationLayer(nn.Module):
    """Enlarge features twice, apply a convolution, eq. 3 and leaky ReLU, and add to the planes so far.

    in_channels 0: the first layer, which starts from a learned constant that is given to it.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: int,
        resolution: int,
        plane_channels: int,  # of all planes together
        code_channels: int,
        kind: Kind,
    ) -> None:
        super().__init__()
        self.first = in_channels == 0
        self.conv = Conv(in_channels or channels, channels, 3)
        self.modulation = Modulation(code_channels, channels, resolution, kind)
        self.to_planes = Conv(channels, plane_channels, 1)
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))

    def forward(self, x: Tensor, planes: Tensor | None, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, C, H, W] and planes [N, P, H, W]."""
        x = x if self.first else upsample2d(x, self.resample_filter)
        x = bias_act(modulated(self.conv(x), *self.modulation(code)), None, act="lrelu")
        made = self.to_planes(x)
        return x, made if planes is None else made + upsample2d(planes, self.resample_filter)

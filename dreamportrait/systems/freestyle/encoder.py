"""The style encoder E: a frontal picture becomes the spatial style code w_s, and a guess of w.

Convolutions halve the picture down to k x k, and further to 4 x 4, where a feature sees the whole picture. From there
the features are enlarged and added to those of the way down, so that every position of the code knows the whole face.

The guess of w is needed because EG3D's super-resolution is modulated by w, which a picture does not have.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.eg3d.layers import Conv, FullyConnected
from dreamportrait.systems.freestyle.config import COARSEST, I2TConfig
from eg3d_ops import bias_act

_GROUPS = 8


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = _norm(channels), _norm(channels)
        self.conv0, self.conv1 = Conv(channels, channels, 3), Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
        y = self.conv0(bias_act(self.norm0(x), None, act="lrelu"))
        y = self.conv1(bias_act(self.norm1(y), None, act="lrelu"))
        return (x + y) * 0.5**0.5


class StyleEncoder(nn.Module):
    def __init__(self, config: I2TConfig) -> None:
        super().__init__()
        c = config
        self.code_size = c.code_size
        down = _halvings(c.image_resolution)
        channels = {r: _channels(c, r) for r in (c.image_resolution, *down)}
        self.stem = Conv(3, channels[c.image_resolution], 3)
        self.halve = nn.ModuleDict(
            {str(r): Conv(channels[2 * r], channels[r], 3, activation="lrelu", down=2) for r in down}
        )
        self.refine = nn.ModuleDict({str(r): ResidualBlock(channels[r]) for r in down})
        up = [r for r in reversed(down) if COARSEST < r <= c.code_size]
        self.enlarge = nn.ModuleDict({str(r): Conv(c.code_channels, c.code_channels, 3) for r in up})
        self.code = ResidualBlock(c.code_channels)
        self.w = FullyConnected(c.code_channels * COARSEST**2, c.w_dim)

    def forward(self, front: Tensor) -> tuple[Tensor, Tensor]:  # [N, 3, R, R] in -1 .. 1 -> [N, c, k, k], [N, w_dim]
        x = self.stem(front)
        passed: dict[str, Tensor] = {}
        for resolution, halve in self.halve.items():
            x = passed[resolution] = self.refine[resolution](halve(x))
        w = self.w(x.flatten(1))
        for resolution, conv in self.enlarge.items():
            larger = F.interpolate(conv(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = (passed[resolution] + larger) * 0.5**0.5
        code = self.code(x)
        if code.shape[2] > self.code_size:  # a code coarser than 4 x 4, such as the vector of the paper's ablation
            code = F.adaptive_avg_pool2d(code, self.code_size)
        return code, w


def _halvings(size: int) -> list[int]:
    """Return the resolutions below that of the picture, down to the coarsest."""
    return [2**i for i in range(size.bit_length() - 2, COARSEST.bit_length() - 2, -1)]


def _channels(config: I2TConfig, resolution: int) -> int:
    """Return the channels of the encoder: a quarter of c for the whole picture, doubled with each halving up to c.

    The way up adds features, so all resolutions from the code's on have c.
    """
    if resolution <= max(config.code_size, COARSEST):
        return config.code_channels
    return min(config.code_channels, config.code_channels // 4 * (config.image_resolution // resolution))


def _norm(channels: int) -> nn.GroupNorm:
    """Return a normalisation over groups of at least four channels, so that channels keep their proportions."""
    most = max(1, min(_GROUPS, channels // 4))
    return nn.GroupNorm(next(n for n in range(most, 0, -1) if channels % n == 0), channels)

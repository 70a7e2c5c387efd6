"""Super-resolution: two synthesis blocks that turn rendered features into the final image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.eg3d.synthesis import Noise, SynthesisBlock
from eg3d_ops import setup_filter


@dataclass(frozen=True)
class SuperResolutionSpec:
    """Sizes of one super-resolution module."""

    input_resolution: int  # rendered images are resized to it
    channels: tuple[int, int]  # output channels of the two blocks
    up: tuple[int, int]  # each block's upsampling
    resize_larger: bool = True  # False: images larger than input_resolution are not resized
    own_filter: bool = True  # the module stores an unused filter, as some released weights do

    @property
    def resolutions(self) -> tuple[int, int]:
        first = self.input_resolution * self.up[0]
        return first, first * self.up[1]


SPECS = {
    "2X": SuperResolutionSpec(64, (128, 64), (1, 2)),
    "4X": SuperResolutionSpec(128, (128, 64), (1, 2), resize_larger=False),
    "8X": SuperResolutionSpec(128, (128, 64), (2, 2)),
    "8XDC": SuperResolutionSpec(128, (256, 128), (2, 2), own_filter=False),
}


class SuperResolution(nn.Module):
    def __init__(
        self,
        spec: SuperResolutionSpec,
        in_channels: int,
        w_dim: int,
        clamp: float | None = None,
        dtype: torch.dtype = torch.float32,
        noise: Noise = "none",
        antialias: bool = True,
    ) -> None:
        super().__init__()
        self.spec, self.noise, self.antialias = spec, noise, antialias
        if spec.own_filter:
            self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        sizes = zip((in_channels, spec.channels[0]), spec.channels, spec.resolutions, spec.up, strict=True)
        self.block0, self.block1 = (
            SynthesisBlock(before, after, w_dim, resolution, 3, up, clamp, dtype)
            for before, after, resolution, up in sizes
        )

    def resize(self, x: Tensor) -> Tensor:
        size = self.spec.input_resolution
        if x.shape[-1] == size or (x.shape[-1] > size and not self.spec.resize_larger):
            return x
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=self.antialias)

    def forward(self, rgb: Tensor, features: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image after block0 and the final image [N, 3, R, R].

        rgb is [N, 3, r, r], features are [N, C, r, r], w is [N, w_dim].
        """
        ws = w[:, None].expand(-1, 3, -1)
        x, first = self.block0(self.resize(features), self.resize(rgb), ws, self.noise)
        _, image = self.block1(x, first, ws, self.noise)
        return first, image

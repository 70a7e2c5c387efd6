"""A head that begins as noise: three planes and a decoder, rendered by the project's renderer.

It has the sizes, the box and the rays of a generator, but none of its weights, so that it knows nothing of faces. There
is no super-resolution: its pictures are rendered at the generator's render resolution and enlarged.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.triplane import DecoderNetwork, Rendering
from dreamportrait.geometry.rays import rays_from_label
from eg3d_ops import render_rays

NOISE = 0.1  # standard deviation of the planes at the start
_EPSILON = 1e-4


class Field(nn.Module):
    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = c = config
        size = c.plane_resolution
        self.planes = nn.Parameter(NOISE * torch.randn(1, c.num_planes, c.plane_channels, size, size))
        self.decoder = DecoderNetwork(c.plane_channels, c.decoder_hidden, 3, lr_multiplier=1.0)

    def view(self, camera: Tensor) -> Rendering:  # [1, 25]
        c, size = self.config, self.config.render_resolution
        found = render_rays(
            self.planes,
            *rays_from_label(camera.to(self.planes.device), size),
            self.decoder.weights(),
            plane_axes=c.plane_axes,
            ray_start=c.ray_start,
            ray_end=c.ray_end,
            box_warp=c.box_warp,
            num_coarse=c.num_coarse,
            num_fine=c.num_fine,
            disparity=c.disparity,
            white_back=c.white_back,
            draws="random" if torch.is_grad_enabled() else "midpoint",
        )
        raw, depth, weights = (rearrange(part, "n (h w) c -> n c h w", h=size) for part in found)
        final = c.image_resolution
        image = raw if final == size else F.interpolate(raw, (final, final), mode="bilinear", align_corners=False)
        return Rendering(image, raw, depth, weights)

    def roughness(self) -> Tensor:  # []
        """Return the mean squared difference between neighbours on the planes."""
        return self.planes.diff(dim=-1).square().mean() + self.planes.diff(dim=-2).square().mean()


def opacity_entropy(weights: Tensor) -> Tensor:  # [N, 1, r, r] -> []
    """Return the mean entropy of the opacity of rays in bits. It is 0 if every ray is full or empty."""
    a = weights.clamp(_EPSILON, 1 - _EPSILON)
    return -(a * a.log2() + (1 - a) * (1 - a).log2()).mean()

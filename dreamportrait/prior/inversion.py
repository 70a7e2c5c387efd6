"""From a picture to the w of a frozen generator: a small network on the features of CLIP's picture tower.

It is trained on the generator's own renders, whose w is known. Applied to photographs it gives the w of the most
similar face that the generator can draw. CLIP's final embedding is not enough for this: it loses what captions rarely
name, such as expressions, which the features before its last layer still hold.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.prior.network import Standard

GRIDS = (4, 2)  # areas per side that the maps of the last two stages are averaged to


class PictureFeatures:
    """The maps of the last two stages of a CLIP's picture tower, as one vector for each picture.

    The stages are those of a ResNet, or the last two blocks of a transformer.
    """

    def __init__(self, clip: Any) -> None:  # an open_clip model
        self.visual: Any = clip.visual
        mean, deviation = (torch.tensor(self.visual.image_mean), torch.tensor(self.visual.image_std))
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]
        size = self.visual.image_size
        self.size: int = size[0] if isinstance(size, tuple | list) else size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, F]
        x = images.clamp(-1, 1) * 0.5 + 0.5
        if x.shape[2] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        x = (x - self.mean.to(x)) / self.deviation.to(x)
        maps = self.visual.forward_intermediates(x, indices=2, intermediates_only=True)["image_intermediates"]
        areas = [F.adaptive_avg_pool2d(part.float(), grid) for part, grid in zip(maps, GRIDS, strict=True)]
        return torch.cat([part.flatten(1) for part in areas], 1)


class Inverter(nn.Module):
    """Map picture features to coordinates of W."""

    def __init__(self, features: int, w_dim: int, width: int = 384) -> None:
        super().__init__()
        self.standard = Standard(features)
        self.net = nn.Sequential(
            nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, w_dim)
        )

    def forward(self, features: Tensor) -> Tensor:  # [N, F] -> [N, w_dim]
        out: Tensor = self.net(self.standard(features))
        return out

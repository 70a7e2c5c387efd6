"""From a picture to the w of a frozen generator: a small network on the features of CLIP's picture tower.

It is trained on the generator's own renders, whose w is known. Applied to photographs it gives the w of the most
similar face that the generator can draw. CLIP's final embedding is not enough for this: it loses what captions rarely
name. A mouth is told from another one by an earlier map, which is still fine enough to show where things are.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.prior.network import Standard

GRIDS = (8, 4, 2)  # areas per side that the maps of the last three stages are averaged to
KEPT = (32, 64, 64)  # channels of these maps that the network from pictures to w makes of them


class FeatureMap(NamedTuple):
    """The size of one map of a picture tower."""

    channels: int
    side: int


class PictureFeatures:
    """The maps of the last three stages of a CLIP's picture tower, as one vector for each picture.

    The stages are those of a ResNet, or the last three blocks of a transformer.
    """

    def __init__(self, clip: Any) -> None:  # an open_clip model
        self.visual: Any = clip.visual
        mean, deviation = (torch.tensor(self.visual.image_mean), torch.tensor(self.visual.image_std))
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]
        size = self.visual.image_size
        self.size: int = size[0] if isinstance(size, tuple | list) else size

    def __call__(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, F]
        return torch.cat([part.flatten(1) for part in self._maps(images)], 1)

    def maps(self) -> tuple[FeatureMap, ...]:
        """Return the sizes of the maps, in the order of the vector."""
        device = next(self.visual.parameters()).device
        with torch.no_grad():
            found = self._maps(torch.zeros(1, 3, self.size, self.size, device=device))
        return tuple(FeatureMap(part.shape[1], part.shape[2]) for part in found)

    def stages(self, images: Tensor) -> list[Tensor]:  # [N, 3, R, R] in -1 .. 1 -> each [N, C, h, w]
        """Return the maps as they are, not yet averaged to areas."""
        x = images.clamp(-1, 1) * 0.5 + 0.5
        if x.shape[2] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        x = (x - self.mean.to(x)) / self.deviation.to(x)
        maps = self.visual.forward_intermediates(x, indices=len(GRIDS), intermediates_only=True)["image_intermediates"]
        return [part.float() for part in maps]

    def _maps(self, images: Tensor) -> list[Tensor]:  # each [N, C, side, side]
        return [F.adaptive_avg_pool2d(part, grid) for part, grid in zip(self.stages(images), GRIDS, strict=True)]


class Inverter(nn.Module):
    """Map picture features to coordinates of W."""

    def __init__(self, maps: tuple[FeatureMap, ...], w_dim: int, width: int = 384, dropout: float = 0.1) -> None:
        super().__init__()
        self.maps = maps
        self.standard = Standard(sum(c * side**2 for c, side in maps))
        kept = KEPT[-len(maps) :]
        self.narrow = nn.ModuleList(nn.Conv2d(part.channels, out, 1) for part, out in zip(maps, kept, strict=True))
        size = sum(out * part.side**2 for part, out in zip(maps, kept, strict=True))
        self.net = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(size, width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, w_dim),
        )

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Inverter":
        """Build the network whose weights these are, in eval mode."""
        channels = [tensors[f"narrow.{i}.weight"].shape[1] for i in range(len(GRIDS))]
        maps = tuple(FeatureMap(count, side) for count, side in zip(channels, GRIDS, strict=True))
        made = cls(maps, len(tensors["net.6.bias"]), len(tensors["net.1.bias"]))
        made.load_state_dict(tensors)
        return made.eval().requires_grad_(False)

    def forward(self, features: Tensor, noise: float = 0.0) -> Tensor:  # [N, F] -> [N, w_dim]
        """Return coordinates. noise: added to the features in training, in their standard deviations."""
        seen = self.standard(features)
        if noise:
            seen = seen + noise * torch.randn_like(seen)
        parts = seen.split([c * side**2 for c, side in self.maps], 1)
        narrowed = [
            F.silu(narrow(part.unflatten(1, (size.channels, size.side, size.side)))).flatten(1)
            for narrow, part, size in zip(self.narrow, parts, self.maps, strict=True)
        ]
        out: Tensor = self.net(torch.cat(narrowed, 1))
        return out

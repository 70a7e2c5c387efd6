"""Perceptual distances of pictures, for pretraining and tuning.

lpips:FILE     LPIPS (Zhang et al. 2018) with VGG-16; FILE holds torchvision's weights, which are not shipped
clip:SOURCE    the maps of a CLIP's picture tower, compared as LPIPS does but without learned weights
none           no such loss
"""

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg  # type: ignore[import-untyped]

from dreamportrait.core.errors import WeightsError, first_line
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.text.loading import load_clip

Perceptual = Callable[[Tensor, Tensor], Tensor]  # [N, 3, R, R] x 2 in -1 .. 1 -> []

JUDGES = ("mini/clip-b", "mini/clip-t")  # they score results, so they must not train anything
VGG_FILE, VGG_SHA256_START = "vgg16-397923af.pth", "397923af"
_TAPS = (3, 8, 15, 22, 29)  # the last activation before each pooling
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS' normalisation of colours
_EPSILON = 1e-8


def make_perceptual(source: str, offline: bool = False, device: torch.device | str = "cpu") -> Perceptual | None:
    """Return the distance that a source names, or None for "none"."""
    check_perceptual(source)
    kind, _, name = source.partition(":")
    if kind == "none":
        return None
    if kind == "lpips":
        return load_lpips(Path(name), device)
    return ClipStages(PictureFeatures(load_clip(name, offline, device).model))


def check_perceptual(source: str) -> None:
    """Raise WeightsError unless `source` names a distance. Nothing is loaded."""
    kind, colon, name = source.partition(":")
    if source != "none" and (kind not in ("lpips", "clip") or not colon or not name):
        raise WeightsError(f"perceptual={source!r}: must be lpips:FILE, clip:SOURCE or none")
    if kind == "clip" and name in JUDGES:
        raise WeightsError(f"perceptual={source!r}: {name} scores results and must not see training; choose another")
    if kind == "lpips" and not Path(name).is_file():
        raise WeightsError(f"perceptual={source!r}: {name} is not there; {_remedy()}")


class ClipStages:
    """Compare the maps of a CLIP's picture tower."""

    def __init__(self, see: PictureFeatures) -> None:
        self.see = see

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        pairs = zip(self.see.stages(images), self.see.stages(others), strict=True)
        distances = [(unit(a) - unit(b)).square().sum(1).mean() for a, b in pairs]
        return torch.stack(distances).mean()


class Lpips(nn.Module):
    """The distance of LPIPS with VGG-16. Its weights must be loaded before use."""

    shift: Tensor  # [3, 1, 1]
    scale: Tensor  # [3, 1, 1]

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg.make_layers(vgg.cfgs["D"])[: _TAPS[-1] + 1]
        widths = [self.features[tap - 1].out_channels for tap in _TAPS]
        self.heads = nn.ParameterList([nn.Parameter(torch.ones(width)) for width in widths])
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        pairs = zip(self.maps(images), self.maps(others), self.heads, strict=True)
        distances = [(head[:, None, None] * (unit(a) - unit(b)).square()).sum(1).mean() for a, b, head in pairs]
        return torch.stack(distances).sum()

    def maps(self, images: Tensor) -> list[Tensor]:  # [N, 3, R, R] -> each [N, C, r, r]
        x, found = (images - self.shift) / self.scale, []
        for number, layer in enumerate(self.features):
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)  # torchvision's works in place
            if number in _TAPS:
                found.append(x)
        return found


def unit(x: Tensor) -> Tensor:  # [N, C, H, W]
    """Give the feature at each position the length 1."""
    return x / (x.square().sum(1, keepdim=True) + _EPSILON).sqrt()


def load_lpips(path: Path, device: torch.device | str = "cpu") -> Lpips:
    """Load LPIPS. The file must be torchvision's; the learned weights of channels come with torchmetrics."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(VGG_SHA256_START):
        raise WeightsError(f"{path} has SHA-256 {digest[:8]}..., not {VGG_SHA256_START}...: other weights; {_remedy()}")
    made = Lpips()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    own = {name: weights[f"features.{name}"] for name in made.features.state_dict()}
    made.features.load_state_dict(own)
    load_heads(made)
    return made.to(device).eval().requires_grad_(False)


def load_heads(made: Lpips) -> None:
    """Load the weights of channels from the package torchmetrics."""
    place = resources.files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"
    try:
        with resources.as_file(place) as path:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        heads = [weights[f"lin{i}.model.1.weight"].flatten() for i in range(len(_TAPS))]
    except (OSError, KeyError, RuntimeError) as error:
        problem = "this version of torchmetrics has no LPIPS weights where they were"
        raise WeightsError(f"{problem}: {first_line(error)}; choose perceptual=clip:SOURCE") from None
    for head, values in zip(made.heads, heads, strict=True):
        head.data.copy_(values)


def _remedy() -> str:
    return f"get {VGG_FILE} (SHA-256 {VGG_SHA256_START}..., of torchvision) and name it; or choose clip:SOURCE"

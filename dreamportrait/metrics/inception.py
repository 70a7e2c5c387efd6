"""The network that defines FID: the Inception of 2015-12-05, as it was in TensorFlow.

torchvision's Inception differs from it. Here, average pooling ignores what lies outside the picture, the last block
uses max pooling, there are 1008 classes (not used), and pictures are resized as TensorFlow 1 did. The weights are not
shipped. They are read from a file, and only the file with the known SHA-256 is accepted.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import inception  # type: ignore[import-untyped]

from dreamportrait.core.errors import WeightsError

FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")  # two names of one file
SHA256_START = "6726825d"
SIZE = 299
_BATCH = 50


class InceptionExtractor:
    """The standard extractor. It returns the 2048 features before the classifier."""

    name = "FID"

    def __init__(self, network: inception.Inception3, weights: str) -> None:
        self.network, self.weights = network, weights

    def features(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, 2048]
        return torch.cat([self._features(part) for part in images.split(_BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        images = images.to(self.network.Conv2d_1a_3x3.conv.weight.device).float()
        colours = (images.clamp(-1, 1) + 1) * 127.5  # 0 .. 255
        features: Tensor = self.network((resized(colours, SIZE) - 128) / 128)
        return features


def load_inception(path: Path | None = None, device: torch.device | str = "cpu") -> InceptionExtractor:
    """Load the extractor from `path` (None = from PyTorch's cache). Raise WeightsError for any other weights."""
    found = locate_inception(path)
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if not digest.startswith(SHA256_START):
        raise WeightsError(f"{found} has SHA-256 {digest[:8]}..., not {SHA256_START}...: other weights; {_remedy()}")
    network = build()
    network.load_state_dict(torch.load(found, map_location="cpu", weights_only=True))
    network.fc = torch.nn.Identity()
    return InceptionExtractor(network.to(device).eval().requires_grad_(False), digest)


def build() -> inception.Inception3:
    """Build the network. Its weights have the names that they have in the file, and must be loaded before use."""
    blocks = [inception.BasicConv2d, _A, inception.InceptionB, _C, inception.InceptionD, _E, None]
    network = inception.Inception3(1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = _LastE(2048)
    return network


def resized(x: Tensor, size: int) -> Tensor:  # [N, C, H, W] -> [N, C, size, size]
    """Resize bilinearly as TensorFlow 1 did: pixels are placed at their upper left corners, not at their centres."""
    for axis in (2, 3):
        pixels = x.shape[axis]
        place = torch.arange(size, device=x.device) * (pixels / size)
        before = place.long()
        after = (before + 1).clamp(max=pixels - 1)
        share = (place - before).reshape(-1, *[1] * (3 - axis))
        x = torch.lerp(x.index_select(axis, before), x.index_select(axis, after), share)
    return x


def locate_inception(path: Path | None = None) -> Path:
    """Return the file of the weights, at `path` or in PyTorch's cache. Raise WeightsError if it is missing."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for candidate in (folder / name for name in FILES) if path is None else (path,):
        if candidate.is_file():
            return candidate
    raise WeightsError(f"the weights of FID's Inception are not in {path or folder}; {_remedy()}")


def _remedy() -> str:
    return (
        f"get {FILES[0]} (SHA-256 {SHA256_START}..., from the releases of pytorch-fid), put it into "
        f"{Path(torch.hub.get_dir()) / 'checkpoints'} or name it as inception:FILE; or choose another extractor, "
        "clip:SOURCE, whose distance is not called FID"
    )


# Blocks: all branches are torchvision's, except for the last one, which pools.


class _Inside:
    """A mixin whose average pooling counts only the pixels inside the picture."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        *others, _ = super()._forward(x)  # type: ignore[misc]
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return [*others, self.branch_pool(pooled)]  # type: ignore[attr-defined]


class _A(_Inside, inception.InceptionA):
    pass


class _C(_Inside, inception.InceptionC):
    pass


class _E(_Inside, inception.InceptionE):
    pass


class _LastE(inception.InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        *others, _ = super()._forward(x)
        return [*others, self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))]

"""The attribute oracle of the miniature world. It checks whether a picture shows what its caption says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.dataset import Pictures, WorldPictures
from dreamportrait.metrics.oracle import Oracle
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible
from dreamportrait.miniworld.captions import agrees
from dreamportrait.weights import single
from dreamportrait.weights.folder import check_tensors
from dreamportrait.weights.registry import locate

RESOLUTION = 64
_BATCH = 200
SIZES = [len(values) for values in ATTRIBUTES.values()]


class Reader(nn.Module):
    """A small network that reads numbers from a picture."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 16),
            *_conv(16, 32, stride=2),
            *_conv(32, 48),
            *_conv(48, 64, stride=2),
            *_conv(64, 64),
            *_conv(64, 96, stride=2),
            *_conv(96, 48, kernel=1),
            nn.AvgPool2d(2),
        )
        self.hidden = nn.Linear(48 * 4 * 4, 112)
        self.heads = nn.Linear(112, outputs)

    def numbers(self, images: Tensor) -> Tensor:  # [N, 3, 64, 64] in -1 .. 1 -> [N, outputs]
        x = self.features(images).flatten(1)  # [N, 768]
        made: Tensor = self.heads(F.relu(self.hidden(x)))
        return made

    def parts(self, images: Tensor) -> Iterator[Tensor]:  # [N, 3, R, R] in -1 .. 1 -> [n, 3, 64, 64] each
        """Check pictures of any size, and return them in batches of the network's size and on its device."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or not len(images):
            raise ValueError(f"images {list(images.shape)}: must be [N, 3, R, R] with N at least 1")
        for part in images.split(_BATCH):
            x = part.to(self.heads.weight.device)
            if x.shape[2] != RESOLUTION:
                x = F.interpolate(x, (RESOLUTION, RESOLUTION), mode="bicubic", antialias=True)
            yield x.clamp(-1, 1)


class AttributeReader(Reader):
    """A small network that reads the attributes of a face from its picture."""

    def __init__(self) -> None:
        super().__init__(sum(SIZES))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # [N, 3, 64, 64] in -1 .. 1 -> logits [N, values] each
        return self.numbers(images).split(SIZES, dim=1)

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, attributes]
        return torch.cat([torch.stack([x.argmax(1) for x in self(part)], dim=1) for part in self.parts(images)])

    def read(self, images: Tensor) -> list[Attributes]:  # [N, 3, R, R] in -1 .. 1
        rows = self.classes(images).tolist()
        return [{name: v[i] for (name, v), i in zip(ATTRIBUTES.items(), row, strict=True)} for row in rows]


def load(folder: Path) -> AttributeReader:
    """Load a reader in single precision, in eval mode, without gradients for its weights."""
    tensors, config = single.read(folder)
    if config.get("attributes") != {name: list(values) for name, values in ATTRIBUTES.items()}:
        raise WeightsError(f"{folder} was trained on other attributes; train the oracle again")
    oracle = AttributeReader()
    check_tensors(oracle, tensors, str(folder / single.WEIGHTS))
    oracle.load_state_dict(tensors)
    return oracle.eval().requires_grad_(False)


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class WorldOracle:
    """An Oracle (see oracle.py) that compares the attributes in a picture, as read by a network, with its caption."""

    names = tuple(ATTRIBUTES)

    def __init__(self, oracle: AttributeReader, facts: Callable[[int], Attributes]) -> None:
        """facts: returns the attributes that the evaluation caption of a number states."""
        self.oracle, self.facts = oracle, facts

    def judge(self, images: Tensor, numbers: list[int]) -> Tensor:  # [n, 3, R, R] -> [n, names]
        rows = [self._shown(face, self.facts(i)) for face, i in zip(self.oracle.read(images), numbers, strict=True)]
        return torch.tensor(rows)

    def kept(self, images: Tensor, plain: Tensor, numbers: list[int]) -> Tensor:  # [n, 3, R, R] -> [n, names]
        pairs = zip(self.oracle.read(images), self.oracle.read(plain), numbers, strict=True)
        return torch.tensor([unchanged(face, before, self.facts(i)) for face, before, i in pairs])

    def _shown(self, face: Attributes, facts: Attributes) -> list[float]:
        return [float(agrees(face, {name: facts[name]})) if name in facts else float("nan") for name in self.names]


def unchanged(face: Attributes, before: Attributes, facts: Attributes) -> list[float]:
    """Return for each attribute whether two faces have the same value; NaN if it is in `facts` or one face hides it."""
    values = []
    for name in ATTRIBUTES:
        compared = name not in facts and is_visible(face, name) and is_visible(before, name)
        values.append(float(face[name] == before[name]) if compared else float("nan"))
    return values


def make_oracle(pictures: Pictures, device: torch.device | str) -> Oracle | None:
    """Return the oracle for captions of the miniature world; None for other data, whose attributes are unknown."""
    if not isinstance(pictures, WorldPictures):
        return None
    return WorldOracle(load(locate("mini/oracle")).to(device), pictures.evaluation_facts)

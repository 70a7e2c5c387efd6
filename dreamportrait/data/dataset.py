"""Training data: pictures with cameras and captions, from a folder, a zip file or the miniature world.

loader.py decides the order of the pictures and captions; this module looks them up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dreamportrait.core.config import Data
from dreamportrait.core.errors import DataError
from dreamportrait.data.folder import ImageFolder
from dreamportrait.data.index import is_prepared
from dreamportrait.data.names import split_source
from dreamportrait.data.shards import ShardPictures, check_prepared
from dreamportrait.miniworld import world
from dreamportrait.text.encoder import TextFeatures

MINIWORLD_FACES = 8000


class Draw(NamedTuple):
    """Numbers of one training sample. The generator gets a camera and caption drawn independently of the picture."""

    image: int
    caption: float  # 0 .. 1, selects one of the captions of the picture
    fake: int  # the picture whose camera and caption the generator gets
    fake_caption: float


class Words(NamedTuple):
    """A caption with the numbers of its picture and of the caption."""

    image: int
    caption: int
    prompt: str


class Example(NamedTuple):
    image: Tensor  # [3, R, R] uint8
    camera: Tensor  # [25]
    words: Words
    fake_camera: Tensor  # [25]
    fake_words: Words


@dataclass(frozen=True)
class Conditions:
    """Cameras and captions of real pictures, or those that the generator gets."""

    camera: Tensor  # [n, 25]
    words: list[Words]
    text: TextFeatures | None = None  # None = not needed

    @property
    def prompts(self) -> list[str]:
        return [words.prompt for words in self.words]

    def __len__(self) -> int:
        return len(self.words)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Conditions":
        text = self.text and TextFeatures(*(x.to(device, non_blocking=non_blocking) for x in _parts(self.text)))
        return replace(self, camera=self.camera.to(device, non_blocking=non_blocking), text=text)

    def part(self, index: int, count: int) -> "Conditions":
        text = self.text and TextFeatures(*(x[index::count] for x in _parts(self.text)))
        return Conditions(self.camera[index::count], self.words[index::count], text)


@dataclass(frozen=True)
class Batch:
    """One process's share of an optimiser step. Pictures stay bytes until they are on the device that needs them."""

    pixels: Tensor  # [n, 3, R, R] uint8
    real: Conditions  # of these pictures; with text features only for a text-conditioned discriminator
    fake: Conditions  # drawn independently, for the generator

    @property
    def image(self) -> Tensor:  # [n, 3, R, R] in -1 .. 1
        values = self.pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(127.5).sub_(1)

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        pixels = self.pixels.to(device, non_blocking=non_blocking)
        return Batch(pixels, self.real.to(device, non_blocking), self.fake.to(device, non_blocking))

    def part(self, index: int, count: int) -> "Batch":
        """Return every count-th sample, starting at `index`.

        Statistics over a batch are then computed over the same groups as in the whole batch.
        """
        return Batch(self.pixels[index::count], self.real.part(index, count), self.fake.part(index, count))


def _parts(text: TextFeatures) -> tuple[Tensor, Tensor, Tensor]:
    return text.words, text.eot, text.mask


# Sources of pictures.


class Pictures(Protocol):
    cameras: Tensor  # [N, 25]
    resolution: int

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor: ...  # [3, R, R] uint8

    def captions(self, index: int) -> list[str]: ...

    def evaluation_caption(self, index: int) -> str: ...


class FolderPictures:
    """The pictures of an ImageFolder, or its first `count`."""

    def __init__(self, path: str | Path, captions: str | Path | None = None, count: int | None = None) -> None:
        self._folder = ImageFolder(path, captions=True if captions is None else captions)
        if count is not None and count > len(self._folder):
            raise DataError(f"{path} holds {len(self._folder)} images, {count} are asked for; lower data.count")
        self._count = count or len(self._folder)
        self.cameras = self._folder.cameras[: self._count]
        self.resolution = self._folder.resolution

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Tensor:
        return self._folder[index].image

    def captions(self, index: int) -> list[str]:
        return self._folder.captions[index]

    def evaluation_caption(self, index: int) -> str:
        return self._folder.evaluation[index]


class WorldPictures:
    """A split of the miniature world, rendered if it is not in the cache."""

    def __init__(self, split: str = "train", count: int = MINIWORLD_FACES, cache: str | None = None) -> None:
        self._asked = split, count, cache
        self._world = self.load(split, count, Path(cache) if cache else None)
        self.cameras = torch.tensor(self._world.cameras)
        self.resolution = world.RESOLUTION

    @staticmethod
    def load(split: str, count: int, cache: Path | None) -> Any:
        return world.load(split, count, cache)

    def __len__(self) -> int:
        return len(self._world)

    def image(self, index: int) -> Tensor:
        return torch.tensor(self._world.images[index])

    def captions(self, index: int) -> list[str]:
        return self._world.captions(index)

    def evaluation_caption(self, index: int) -> str:
        return self._world.evaluation_caption(index)

    def evaluation_facts(self, index: int) -> dict[str, str]:
        """Return the attributes and values that the evaluation caption states."""
        return self._world.evaluation_facts(index)

    def __reduce__(self) -> tuple[Any, ...]:  # worker processes open the files themselves
        return type(self), self._asked


def make_pictures(data: Data) -> Pictures:
    if data.kind == "folder":
        assert data.path is not None  # checked with the configuration
        return open_folder(data.path, data.captions, data.count, whole=not data.own_shards)
    if data.kind == "miniworld":
        return WorldPictures("train", data.count or MINIWORLD_FACES, data.path)
    raise ValueError(f"data.kind={data.kind!r}: must be miniworld or folder")


def open_folder(source: str, captions: str | None = None, count: int | None = None, *, whole: bool = True) -> Pictures:
    """Open a data set on disk: a prepared one, with its split after a colon, or one in the format of folder.py.

    whole: whether all shards of a prepared one must be there.
    """
    path, split = split_source(source)
    if not is_prepared(path):
        if split is not None:
            raise DataError(f"{source}: {path} has no splits; leave out :{split}, or prepare it first")
        return FolderPictures(path, captions, count)
    check_prepared(path, captions)
    return ShardPictures(path, split or "train", count, whole=whole)


class TrainingData(Dataset[Example]):
    """Data set that returns the example for a Draw."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: Draw) -> Example:
        p = self.pictures
        words, fake_words = self._words(draw.image, draw.caption), self._words(draw.fake, draw.fake_caption)
        return Example(p.image(draw.image), p.cameras[draw.image], words, p.cameras[draw.fake], fake_words)

    def _words(self, image: int, draw: float) -> Words:
        captions = self.pictures.captions(image)
        number = int(draw * len(captions))
        return Words(image, number, captions[number])


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples into a batch, without text features. Bytes stay in the order of decoders: pixel by pixel."""
    images, cameras, words, fake_cameras, fake_words = zip(*examples, strict=True)
    real = Conditions(torch.stack(cameras), list(words))
    pixels = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # [n, 3, R, R]
    return Batch(pixels, real, Conditions(torch.stack(fake_cameras), list(fake_words)))

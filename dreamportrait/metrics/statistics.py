"""Moments of real pictures, and fingerprints of data sets.

The moments are cached, because they never change and take as long to compute as those of generated pictures.
"""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dreamportrait.core.files import check_writable
from dreamportrait.core.processes import everywhere, gathered, own, processes
from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.images import antialiased, as_saved, from_bytes
from dreamportrait.metrics import region
from dreamportrait.metrics.extractors import Extractor
from dreamportrait.metrics.frechet import Moments, Sums
from dreamportrait.metrics.region import Region
from dreamportrait.metrics.sharpness import RealPatches
from dreamportrait.weights.folder import write_tensors

_log = logging.getLogger(__name__)
FOLDER = "statistics"  # in the cache
VERSION = 1  # of the preparation of pictures; files that were cached with another version are not used
_BATCH = 64


class RealStatistics:
    """Moments of the features of the first `count` pictures of a data set, and patches of the same pictures."""

    def __init__(
        self,
        pictures: Pictures,
        extractor: Extractor,
        count: int,
        shown: Region,
        content: str | None = None,  # fingerprint of the pictures; needed with a cache
        cache: Path | None = None,  # None = kept in memory only
    ) -> None:
        self.pictures, self.extractor, self.count, self.region = pictures, extractor, count, shown
        self.content, self.cache = content, cache
        self.keeps = cache is not None and _can_write(cache / FOLDER)
        self.known: dict[int, Moments] = {}  # by resolution

    def moments(self, size: int, batch: int = _BATCH) -> Moments:
        if size not in self.known:
            path = self._path(size)
            found = None if path is None else _read(path)
            known = found if everywhere(found is not None) else None
            self.known[size] = self._computed(size, batch) if known is None else known
            if path is not None and self.keeps and known is None and processes()[0] == 0:
                _write(path, self.known[size])
        return self.known[size]

    @cached_property
    def patches(self) -> RealPatches:
        return RealPatches(self.pictures.image, self.count, len(self.pictures))

    def _computed(self, size: int, batch: int) -> Moments:
        parts = [Sums.of(self._features(numbers, size)) for numbers in own(self.count, batch)]
        return reduce(add, parts).over_processes().moments()

    def _features(self, numbers: list[int], size: int) -> Tensor:
        images = from_bytes(torch.stack([self.pictures.image(i) for i in numbers]))
        if images.shape[-1] != size:
            images = as_saved(antialiased(images, size))
        return self.extractor.features(region.show(images, self.region))

    def _path(self, size: int) -> Path | None:
        if self.cache is None or self.content is None:
            return None
        e = self.extractor
        key = json.dumps([VERSION, self.content, e.name, e.weights, size, region.describe(self.region), self.count])
        return self.cache / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _can_write(folder: Path) -> bool:
    """Return whether moments can be kept, and warn if not, before anything is computed."""
    try:
        check_writable(folder / "moments")
    except OSError as error:
        _log.warning(
            "moments of real pictures are not kept: %s. They are computed each time; the variable DREAMPORTRAIT_CACHE "
            "chooses another cache",
            error,
        )
        return False
    return True


def _read(path: Path) -> Moments | None:
    """Return the cached moments, or None if the file is missing or damaged. They are then computed again."""
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        return Moments(tensors["mean"], tensors["covariance"])
    except (SafetensorError, KeyError):
        return None


def _write(path: Path, moments: Moments) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_tensors(unfinished, moments._asdict())
    os.replace(unfinished, path)


# Fingerprints.


class Fingerprints:
    """Hashes of the first `count` pictures of a data set. All are read, which also finds unreadable pictures."""

    def __init__(self, pictures: Pictures, count: int) -> None:
        self.pictures = pictures_hash(pictures.image, count)
        said = [(pictures.captions(i)[0], pictures.evaluation_caption(i)) for i in range(count)]
        captions = json.dumps(said).encode()
        self.whole = _hash(self.pictures.encode(), pictures.cameras[:count].contiguous().numpy().tobytes(), captions)


def pictures_hash(image: Callable[[int], Tensor], count: int) -> str:
    """Return the SHA-256 of the first `count` pictures. image: returns the picture of a number."""
    digests = [_digest(image(i)) for numbers in own(count, 1) for i in numbers]
    rows = gathered(torch.tensor(digests, dtype=torch.uint8), count)  # [N, 32]
    return _hash(bytes(rows.numpy().tobytes()))


def _digest(image: Tensor) -> list[int]:
    return list(hashlib.sha256(str(list(image.shape)).encode() + image.contiguous().numpy().tobytes()).digest())


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()

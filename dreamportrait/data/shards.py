"""Reads pictures of a prepared data set: any of them at once, or all of them in the order of the shards.

A picture is read from its shard by the offset that the index holds, so training can draw pictures in any order and
continue at any image. Tar files hold members as they are, so other programs stream the same shards.
"""

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import DataError, first_line, listed
from dreamportrait.data.index import INDEX, SHARDS, SPLITS, Entry, read_index, read_preparation, shard_path
from dreamportrait.data.names import ALL
from dreamportrait.geometry.cameras import check_camera
from dreamportrait.geometry.pictures import opened


def check_prepared(path: Path, captions: str | None) -> None:
    """Raise DataError unless training can read a prepared data set. No picture is read."""
    read_preparation(path)
    if missing := [name for name in (INDEX, SHARDS) if not (path / name).exists()]:
        raise DataError(f"{path} has no {' and no '.join(missing)}; copy the data set again")
    if captions is not None:
        raise DataError(f"{path} has captions of its own; leave data.captions out, or prepare it again with --captions")


class ShardPictures:
    """The pictures of a split of a prepared data set, in the order of the source. See `data.dataset.Pictures`.

    whole: whether the shards of all pictures must be there.
    """

    def __init__(self, path: str | Path, split: str = "train", count: int | None = None, *, whole: bool = True) -> None:
        self.path, self.split = Path(path), split
        if split not in (*SPLITS, ALL):
            raise DataError(f"{path}: no split {split!r}; must be {', '.join(SPLITS)} or {ALL}")
        self.resolution = int(read_preparation(self.path)["resolution"])
        rows = [row for row in read_index(self.path) if isinstance(row, Entry) and split in (row.split, ALL)]
        if not rows:
            raise DataError(f"{path} has no pictures in the split {split}; choose another, or {ALL}")
        if count is not None and count > len(rows):
            raise DataError(
                f"{path}: the split {split} holds {len(rows)} images, {count} are asked for; lower data.count"
            )
        self.entries = rows[:count]
        self.cameras = _cameras(self.path, self.entries)  # [N, 25]
        self._files = _OpenShards(self.path)
        if whole:
            self.check(range(len(self)))

    def check(self, numbers: Iterable[int]) -> None:
        """Raise DataError unless the shards of these pictures are there."""
        self._files.check(sorted({self.entries[number].shard for number in numbers}))

    @property
    def shards(self) -> list[int]:
        """Return the shard that each picture lies in."""
        return [entry.shard for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Tensor:  # [3, R, R] uint8
        entry = self.entries[index]
        return decode(self._files.read(entry), self.resolution, f"{self.path}: {entry.file}")

    def content(self, index: int) -> bytes:
        """Return a picture as it lies in its shard."""
        return self._files.read(self.entries[index])

    def captions(self, index: int) -> list[str]:
        return self.entries[index].captions

    def evaluation_caption(self, index: int) -> str:
        return self.entries[index].evaluation


def decode(content: bytes, resolution: int, where: str) -> Tensor:  # [3, R, R] uint8
    """Decode a JPEG, PNG or WebP picture of the right size, which is checked before the pixels are decoded."""
    try:
        with opened(io.BytesIO(content)) as picture:
            size, mode = picture.size, picture.mode
            pixels = np.asarray(picture) if size == (resolution, resolution) and mode == "RGB" else None  # [R, R, 3]
    except Exception as error:  # damaged files raise many kinds of errors
        raise DataError(f"{where} cannot be decoded: {first_line(error)}; prepare the data set again") from None
    if pixels is None:
        given = f"{size[0]} x {size[1]} in mode {mode}"
        raise DataError(f"{where} is {given}; must be {resolution} x {resolution} RGB: prepare the data set again")
    with warnings.catch_warnings():  # of memory that is read-only; nothing else holds it, and a copy would take longer
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _cameras(path: Path, entries: Sequence[Entry]) -> Tensor:
    if wrong := [entry.file for entry in entries if len(entry.camera) != 25]:
        raise DataError(
            f"{path}: cameras of {listed(wrong)} have not 25 numbers; `dreamportrait data validate` says more"
        )
    try:
        return check_camera(torch.tensor([entry.camera for entry in entries], dtype=torch.float32))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error} (counted in the split)") from None


class _OpenShards:
    """Shards, opened when they are first read. Each process opens its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[int, int] = {}
        self._process = os.getpid()

    def check(self, numbers: Sequence[int]) -> None:
        if missing := [shard_path(self._folder, n).name for n in numbers if not shard_path(self._folder, n).is_file()]:
            raise DataError(f"{self._folder}: shards {listed(missing)} are missing; copy them again")

    def read(self, entry: Entry) -> bytes:
        if self._process != os.getpid():  # forked: the parent goes on using its own
            self._opened, self._process = {}, os.getpid()
        path = shard_path(self._folder, entry.shard)
        if entry.shard not in self._opened:
            try:
                self._opened[entry.shard] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{path} cannot be opened: {error.strerror}; copy it again") from None
        content = os.pread(self._opened[entry.shard], entry.size, entry.offset)
        if len(content) != entry.size:
            raise DataError(f"{path} ends before {entry.file}; copy it again")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def __del__(self) -> None:
        if self._process == os.getpid():
            for descriptor in self._opened.values():
                os.close(descriptor)

"""Writing of data sets in the format that folder.py describes and reads.

A data set is written next to its destination and moved there when complete, so that it is never incomplete.
"""

import io
import json
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image

from dreamportrait.core.errors import DataError, listed
from dreamportrait.data.folder import ATTRIBUTES, CAPTIONS, LABEL_SIZE, LABELS, WORLD, list_files
from dreamportrait.geometry.cameras import check_camera

_OURS = re.compile(r"\d{5}/img\d{8}\.png|" + "|".join(map(re.escape, (LABELS, CAPTIONS, ATTRIBUTES, WORLD))))
_PER_FOLDER = 1000


@dataclass(frozen=True)
class Sample:
    """One image with its camera, captions and attributes."""

    image: Array  # [3, R, R] uint8
    camera: Array  # [25]
    captions: Sequence[str]
    evaluation: str  # the caption for evaluation
    attributes: Mapping[str, str] | None = None  # given for all images or for none


def write_dataset(
    out: str | Path, samples: Iterable[Sample], world: Mapping[str, Any] | None = None, overwrite: bool = False
) -> int:
    """Write a data set to a folder, or to a zip file if `out` ends in .zip, and return the number of images.

    world: the origin of the images, for world.json.
    """
    out = Path(out).resolve()
    check_free(out, overwrite)
    with _replacing(out) as target:
        tables = _Tables()
        for sample in samples:
            target.add(tables.add(sample), _png(sample.image))
        if not tables.labels:
            raise DataError(f"{out}: no samples were given; a data set has at least one image")
        target.add(LABELS, json.dumps({"labels": tables.labels}).encode())
        target.add(CAPTIONS, _lines(tables.captions))
        if tables.attributes:
            target.add(ATTRIBUTES, _lines(tables.attributes))
        if world is not None:
            target.add(WORLD, (json.dumps(world, indent=2, allow_nan=False) + "\n").encode())
    return len(tables.labels)


def check_free(out: str | Path, overwrite: bool) -> None:
    """Raise DataError unless a data set may be written to `out`. Only another data set is ever replaced."""
    out = Path(out).resolve()
    if not out.exists() or (out.is_dir() and not is_zip(out) and not any(out.iterdir())):
        return
    if not overwrite:
        raise DataError(f"{out} exists; name another place, or allow overwriting (--overwrite)")
    if out.is_dir() == is_zip(out):
        raise DataError(f"{out} is {'a folder' if out.is_dir() else 'no folder'} and is left alone; name another place")
    present = list_files(out) if out.is_dir() else _list_zip(out)
    if LABELS not in present:
        raise DataError(f"{out} holds no {LABELS}, so it is no data set and is left alone; name another place")
    if foreign := [name for name in present if not _OURS.fullmatch(name)]:
        raise DataError(f"{out} holds other files ({listed(foreign)}) and is left alone; name another place")


def is_zip(out: Path) -> bool:
    """Return whether a data set of this name is a zip file."""
    return out.suffix == ".zip"


def _list_zip(out: Path) -> list[str]:
    if not zipfile.is_zipfile(out):
        return []
    with zipfile.ZipFile(out) as file:
        return file.namelist()


class _Tables:
    """Content of the text files of a data set, and the image shape that all samples share."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, list[float]]] = []
        self.captions: list[dict[str, Any]] = []
        self.attributes: list[dict[str, Any]] = []
        self.shape: tuple[int, ...] = ()

    def add(self, sample: Sample) -> str:
        """Check and add a sample; return the file name of its image."""
        index = len(self.labels)
        if problem := self._problem(sample):
            raise DataError(f"sample {index}: {problem}")
        name = f"{index // _PER_FOLDER:05d}/img{index:08d}.png"
        self.labels.append((name, sample.camera.tolist()))
        self.captions.append({"file": name, "captions": list(sample.captions), "evaluation": sample.evaluation})
        if sample.attributes is not None:
            self.attributes.append({"file": name, "attributes": dict(sample.attributes)})
        return name

    def _problem(self, sample: Sample) -> str:
        shape = sample.image.shape
        self.shape = self.shape or shape
        if sample.image.dtype != np.uint8 or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or not shape[1]:
            return f"image must be [3, R, R] of uint8, got {list(shape)} of {sample.image.dtype}"
        if shape != self.shape:
            return f"image is {list(shape)}, those before {list(self.shape)}; all have one size"
        if sample.camera.shape != (LABEL_SIZE,):
            return f"camera must have {LABEL_SIZE} numbers, got shape {list(sample.camera.shape)}"
        if not sample.captions or isinstance(sample.captions, str):
            return f"captions must be a list of at least one text, got {sample.captions!r}"
        if self.labels and (sample.attributes is None) == bool(self.attributes):
            return "attributes must be given for all samples or for none"
        try:
            check_camera(torch.from_numpy(sample.camera)[None])
        except ValueError as error:
            return str(error)
        return ""


class _Target(Protocol):
    def add(self, name: str, content: bytes) -> None: ...


class _FolderTarget:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, content: bytes) -> None:
        path = self._path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


class _ZipTarget:
    """Entries are uncompressed, as PNGs do not shrink, and have no times, so that equal content gives equal files."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def add(self, name: str, content: bytes) -> None:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o644 << 16
        self._file.writestr(entry, content)


@contextmanager
def _replacing(out: Path) -> Iterator[_Target]:
    """Yield a target to write to. It replaces `out` at the end, or is removed after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (out.with_name(f".{out.name}.{secrets.token_hex(4)}.{use}") for use in ("new", "old"))
    try:
        if is_zip(out):
            with zipfile.ZipFile(staging, "w") as file:
                yield _ZipTarget(file)
        else:
            staging.mkdir()
            yield _FolderTarget(staging)
        if out.exists():
            out.rename(old)
        staging.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        _remove(staging)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _png(image: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

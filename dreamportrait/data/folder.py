"""Data sets on disk: a folder, or a zip file with the same content, as EG3D reads them, with captions added.

    00000/img00000000.png   square RGB images of one size; a thousand to a subfolder
    dataset.json            {"labels": [["00000/img00000000.png", [25 numbers]], ...]}, a camera for each image
    captions.jsonl          a line per image: {"file": ..., "captions": [...], "evaluation": ...}
    attributes.jsonl        a line per image: {"file": ..., "attributes": {...}}; only if they are known
    world.json              the origin of the images; not needed for reading them

Training draws from all captions of an image; evaluation always uses "evaluation". writing.py writes such data sets.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dreamportrait.core.errors import DataError, listed, shown
from dreamportrait.core.files import MEBIBYTE, MOST_TEXT, read_text
from dreamportrait.geometry.cameras import check_camera
from dreamportrait.geometry.pictures import opened

LABELS, CAPTIONS, ATTRIBUTES, WORLD = "dataset.json", "captions.jsonl", "attributes.jsonl", "world.json"
LABEL_SIZE = 25
MOST_IMAGE = 256 * MEBIBYTE  # of a file; a picture of the largest size has 192 without compression
_IMAGES = (".png", ".jpg", ".jpeg")
_MOST_SHRUNK, _SMALL = 100, 16 * MEBIBYTE  # text shrinks to a tenth; smaller files may shrink to anything
_FLOAT_MAX = float(np.finfo(np.float32).max)


class Item(NamedTuple):
    """One image with its camera and captions."""

    image: Tensor  # [3, R, R] uint8
    camera: Tensor  # [25] float32
    captions: list[str]  # empty if captions are not read


class ImageFolder(Dataset[Item]):
    """A data set in a folder or zip file. Labels and captions are checked at once, images when they are read."""

    def __init__(self, path: str | Path, captions: bool | str | Path = True) -> None:
        """Open a data set. `captions`: whether to read captions.jsonl, or a file to read instead."""
        self.path = Path(path)
        self._files = _open(self.path)
        self.files = [name for name in self._files.names() if name.lower().endswith(_IMAGES)]
        if not self.files:
            raise DataError(f"{self.path} holds no images ({', '.join(_IMAGES)})")
        self.cameras = self._read_cameras()  # [N, 25]
        lines = self._read_captions(captions) if captions else []
        self.captions: list[list[str]] = [line["captions"] for line in lines]
        self.evaluation: list[str] = [line["evaluation"] for line in lines]
        known = ATTRIBUTES in self._files.names()
        text = self._read_text(ATTRIBUTES) if known else ""
        lines = self._read_lines(text, f"{self.path}: {ATTRIBUTES}", _check_attributes) if known else []
        self.attributes: list[dict[str, str]] = [line["attributes"] for line in lines]
        self.resolution = 0  # unknown until the first image is read
        self.resolution = self._read_image(0).shape[-1]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        return Item(self._read_image(index), self.cameras[index], self.captions[index] if self.captions else [])

    def _read_image(self, index: int) -> Tensor:
        where = f"{self.path}: {self.files[index]}"
        try:
            with opened(io.BytesIO(self._files.read(self.files[index], MOST_IMAGE))) as file:
                self._check_header(file, where)
                image = np.array(file)
        except DataError:
            raise
        except Exception as error:  # damaged files raise many kinds of errors
            raise DataError(f"{where} cannot be read: {error}. Restore the file, or write the data set again") from None
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()  # [3, R, R]

    def _check_header(self, file: Image.Image, where: str) -> None:
        """Raise DataError if mode or size are wrong. The pixels are not decoded for it."""
        if file.mode != "RGB":
            raise DataError(f"{where} has mode {file.mode}; images must be RGB with 8 bits: convert it")
        expected = (self.resolution or file.size[0],) * 2
        if file.size != expected:
            raise DataError(
                f"{where} is {file.size[0]} x {file.size[1]}; must be {expected[0]} x {expected[1]}: resize or crop it"
            )

    def _read_cameras(self) -> Tensor:
        where = f"{self.path}: {LABELS}"
        labels = _parse_labels(self._read_text(LABELS), where)
        _check_names(where, "label", self.files, list(labels))
        wrong = [name for name in self.files if not _is_label(labels[name])]
        if wrong:
            lengths = [f"{name} has {_summary(labels[name])}" for name in wrong]
            raise DataError(f"{where}: a label is a list of {LABEL_SIZE} numbers; {listed(lengths)}")
        cameras = torch.tensor([labels[name] for name in self.files], dtype=torch.float32)
        try:
            return check_camera(cameras)
        except ValueError as error:
            raise DataError(f"{where}: {error} (counted in the order of file names)") from None

    def _read_captions(self, place: Literal[True] | str | Path) -> list[dict[str, Any]]:
        if place is True:
            return self._read_lines(self._read_text(CAPTIONS), f"{self.path}: {CAPTIONS}", _check_captions)
        try:
            text = read_text(Path(place))
        except (OSError, ValueError) as error:
            raise DataError(f"captions {place} cannot be read: {error}") from None
        return self._read_lines(text, str(place), _check_captions)

    def _read_lines(self, content: str, where: str, check: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
        """Return the lines in the order of the images."""
        found: dict[str, dict[str, Any]] = {}
        for number, text in enumerate(content.removesuffix("\n").split("\n"), 1):
            line = _parse(text, f"{where}, line {number}")
            problem = check(line) if isinstance(line, dict) and isinstance(line.get("file"), str) else 'no "file" named'
            if not problem and line["file"] in found:
                problem = f"second line for {line['file']}"
            if problem:
                raise DataError(f"{where}, line {number}: {problem}")
            found[line["file"]] = line
        _check_names(where, "line", self.files, list(found))
        return [found[name] for name in self.files]

    def _read_text(self, name: str) -> str:
        if name not in self._files.names():
            raise DataError(f"{self.path} has no {name}; datasets/miniworld.py writes a complete data set")
        try:
            return self._files.read(name, MOST_TEXT).decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: {name} is not UTF-8: {error}") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None


def _parse_labels(text: str, where: str) -> dict[str, Any]:
    content = _parse(text, where)
    rows = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows
    ):
        raise DataError(f'{where} must be {{"labels": [[file, [{LABEL_SIZE} numbers]], ...]}}')
    labels = dict(rows)
    if len(labels) < len(rows):
        raise DataError(f"{where}: {len(rows)} labels for {len(labels)} files; each must be there once")
    return labels


def _is_label(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == LABEL_SIZE
        and all(type(value) in (int, float) and abs(value) <= _FLOAT_MAX for value in values)
    )


def _summary(values: Any) -> str:
    if isinstance(values, list):
        return f"{len(values)}" if len(values) != LABEL_SIZE else "a value that is not a finite number"
    return shown(repr(values), 30)


def _check_names(where: str, what: str, images: list[str], named: list[str]) -> None:
    """Raise DataError unless `named` holds each image and nothing else."""
    missing, extra = sorted(set(images) - set(named)), sorted(set(named) - set(images))
    problems = [f"no {what} for {listed(missing)}"] if missing else []
    problems += [f"a {what} but no image for {listed([shown(name) for name in extra])}"] if extra else []
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}. Copy the data set again, or add or remove what differs")


def _check_captions(line: dict[str, Any]) -> str:
    texts = line.get("captions")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return f'"captions" must be a list of at least one text, got {shown(repr(texts))}'
    if not isinstance(line.get("evaluation"), str):
        return f'"evaluation" must be a text, got {shown(repr(line.get("evaluation")))}'
    return ""


def _check_attributes(line: dict[str, Any]) -> str:
    values = line.get("attributes")
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        return f'"attributes" must be texts by name, got {shown(repr(values))}'
    return ""


class _Files(Protocol):
    def names(self) -> list[str]: ...
    def read(self, name: str, limit: int) -> bytes: ...  # raises DataError if the file has more bytes


def _open(path: Path) -> _Files:
    if path.is_dir():
        return _FolderFiles(path)
    if not path.exists():
        raise DataError(f"{path} is not there; datasets/miniworld.py writes a data set")
    return _ZipFiles(path)


class _FolderFiles:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = list_files(path)

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str, limit: int) -> bytes:
        path = self._path / name
        _check_size(str(path), path.stat().st_size, limit)
        return path.read_bytes()


class _ZipFiles:
    """Files in a zip archive.

    Each process opens the archive itself, because a file position shared with the parent would corrupt its reads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._names = sorted(name for name in self._zip().namelist() if not name.endswith("/"))

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str, limit: int) -> bytes:
        entry, where = self._zip().getinfo(name), f"{self._path}: {name}"
        _check_size(where, entry.file_size, limit)
        if entry.file_size > max(_SMALL, _MOST_SHRUNK * entry.compress_size):
            raise DataError(
                f"{where} has {entry.compress_size:,} bytes and would unpack to {entry.file_size:,}, more than "
                f"{_MOST_SHRUNK} times as many; write the data set again"
            )
        try:
            return self._zip().read(entry)
        except Exception as error:  # zip files can be damaged, encrypted or packed by unknown methods
            raise DataError(f"{where} cannot be read: {error}; write the data set again") from None

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_zip(self._path))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file. Raise DataError if it is none, or if its list of files is damaged."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a zip file")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise DataError(f"{path} is a damaged zip file: {error}; write it again") from None


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where} has {size:,} bytes; at most {limit:,} are read")


def list_files(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())

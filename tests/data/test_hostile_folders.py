"""Tests of data sets that would take much memory or time to read, or that cannot be unpacked."""

import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from small_sets import edit, write

from dreamportrait.core.errors import DataError
from dreamportrait.data.folder import ImageFolder, list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "set")


def huge_png(width: int) -> bytes:
    """Return a PNG whose header gives this size and whose pixels are missing."""
    header = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("width", "message"), [(4096, "is 4096 x 4096; must be 8 x 8"), (13_000, "13000 x 13000 pixels; at most 8192")]
)
def test_sizes_are_refused_before_pixels_are_decoded(folder, width, message):
    data = ImageFolder(folder)
    (folder / "00000/img00000001.png").write_bytes(huge_png(width))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            data[1]


def test_a_camera_too_large_for_a_float_is_refused(folder):
    edit(folder / "dataset.json", lambda text: text.replace("0.0", "1" + "0" * 400, 1))
    with pytest.raises(DataError, match="img0000.* has a value that is not a finite number"):
        ImageFolder(folder)


def packed(path: Path, folder: Path, method: int = zipfile.ZIP_DEFLATED, **changed: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name in list_files(folder):
            file.writestr(name, changed.get(Path(name).stem, (folder / name).read_bytes()))
    return path


def flag(path: Path, name: str, offset: int, value: int) -> None:
    """Change a byte of an entry, both at the entry and in the list at the end of the zip file."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo(name).header_offset
    central = content.rindex(name.encode()) - 46
    content[start + offset], content[central + offset + 2] = value, value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: flag(path, "captions.jsonl", 6, 1), "captions.jsonl cannot be read: .*encrypted"),
        (lambda path: flag(path, "captions.jsonl", 8, 99), "captions.jsonl cannot be read: .*compression method"),
        (lambda path: edit_bytes(path, b"captions.jsonl", 40), "captions.jsonl cannot be read: "),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK??")), "is a damaged zip file"),
    ],
)
def test_zip_files_that_cannot_be_unpacked(folder, tmp_path, damage, message):
    path = packed(tmp_path / "set.zip", folder)
    damage(path)
    with pytest.raises(DataError, match=message):
        ImageFolder(path)


def edit_bytes(path: Path, after: bytes, distance: int) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(after) + len(after) + distance] ^= 0x10
    path.write_bytes(content)


def test_a_zip_bomb_is_not_unpacked(folder, tmp_path, monkeypatch):
    path = packed(tmp_path / "set.zip", folder, captions=b" " * 17 * 2**20)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with zipfile.ZipFile(path) as file:
        monkeypatch.setattr(ImageFolder, "_read_cameras", lambda _: torch.zeros(1, 25))
        assert file.getinfo("captions.jsonl").compress_size < 20_000
    with pytest.raises(
        DataError, match=r"captions.jsonl has [\d,]+ bytes and would unpack to 17,825,792, more than 100"
    ):
        ImageFolder(path)


def test_long_files_are_not_read(folder):
    os.truncate(folder / "captions.jsonl", 3 * 2**30)  # takes no room on the disk
    with pytest.raises(DataError, match=r"captions.jsonl has 3,221,225,472 bytes; at most 1,073,741,824 are read"):
        ImageFolder(folder)

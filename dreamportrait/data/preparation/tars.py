"""Writes pictures into tar archives in the layout of webdataset, and remembers where each one lies."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from dreamportrait.core.files import replacing

KINDS = ("jpg", "png", "webp")


def encode(picture: Image.Image, kind: str, quality: int) -> bytes:
    """Return a picture as the bytes of a file of one of KINDS. quality: only of jpg."""
    file = io.BytesIO()
    if kind == "jpg":
        picture.save(file, "JPEG", quality=quality, subsampling="4:4:4")
    elif kind == "png":
        picture.save(file, "PNG", compress_level=1)  # higher levels take longer and save little
    elif kind == "webp":
        picture.save(file, "WEBP", lossless=True, method=0)  # higher methods take five times as long and save 8 %
    else:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
    return file.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_shard(path: Path, samples: Iterable[tuple[str, str, bytes, dict[str, Any]]]) -> list[int]:
    """Write samples (key, kind, picture, data) to a tar archive, and return where the pictures start in it.

    Members carry no time or owner, so that equal content gives equal archives.
    """
    offsets = []
    with replacing(path) as unfinished, unfinished.open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for key, kind, content, data in samples:
            offsets.append(_add(archive, file, f"{key}.{kind}", content))
            _add(archive, file, f"{key}.json", json.dumps(data, ensure_ascii=False).encode())
    return offsets


def _add(archive: tarfile.TarFile, file: BinaryIO, name: str, content: bytes) -> int:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
    return file.tell() - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE  # members are padded to blocks

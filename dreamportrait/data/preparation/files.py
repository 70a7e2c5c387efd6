"""The files of a source: a folder or a zip archive, read without trust.

Folders are searched without following links to folders, so that a loop of links ends. In an archive, names that leave
it are refused, and so are members that unpack to much more than they should.
"""

import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from dreamportrait.core.errors import DataError, shown
from dreamportrait.data.preparation.pictures import MOST_BYTES, Unusable

MOST_MEMBERS = 5_000_000
MOST_RATIO = 200  # unpacked to packed size; photographs and texts stay far below


class Files(Protocol):
    path: Path
    names: list[str]  # sorted, with forward slashes

    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise Unusable with the reason."""
        ...

    def size(self, name: str) -> int | None:
        """Return the number of bytes of a file; None if it cannot be read."""
        ...


def open_files(path: Path) -> "Files":
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise DataError(f"{path} is not there; name a folder of photographs or a zip file")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a zip file")
    return ZipFiles(path)


class FolderFiles:
    def __init__(self, path: Path) -> None:
        self.path = path
        found = [
            (Path(folder) / name).relative_to(path).as_posix()
            for folder, _, names in os.walk(path)  # does not follow links to folders
            for name in names
        ]
        self.names = sorted(found)

    def read(self, name: str) -> bytes:
        try:
            if (self.path / name).stat().st_size > MOST_BYTES:
                raise Unusable(f"larger than {MOST_BYTES >> 20} MiB")
            return (self.path / name).read_bytes()
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror}") from None

    def size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None


class ZipFiles:
    """Each process opens the archive itself, because a file position shared with another would corrupt its reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        names = [name for name in self._zip().namelist() if not name.endswith("/")]
        if len(names) > MOST_MEMBERS:
            raise DataError(f"{path} has {len(names)} members; at most {MOST_MEMBERS} are read")
        for name in names:
            _check_inside(path, name)
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise DataError(f"{path} holds {shown(twice)} twice; keep one of them")
        self.names = sorted(names)

    def read(self, name: str) -> bytes:
        info = self._zip().getinfo(name)
        if info.file_size > MOST_BYTES or info.file_size > MOST_RATIO * max(info.compress_size, 1024):
            raise Unusable(f"unpacks from {info.compress_size} to {info.file_size} bytes")
        try:
            with self._zip().open(info) as member:
                content = member.read(info.file_size + 1)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise Unusable(f"cannot be unpacked: {shown(str(error), 60)}") from None
        if len(content) > info.file_size:
            raise Unusable("is larger than its archive says")
        return content

    def size(self, name: str) -> int | None:
        return self._zip().getinfo(name).file_size

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), zipfile.ZipFile(self.path))
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{self.path} cannot be read: {error}") from None
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}


def _check_inside(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (len(name) > 1 and name[1] == ":"):
        raise DataError(f"{path} holds {shown(name)}, which would lie outside of it; do not use this archive")

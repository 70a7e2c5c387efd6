"""Helpers that write files and folders completely or not at all, and the cache folder."""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreamportrait.core.errors import WeightsError, listed

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MEBIBYTE = 2**20
MOST_TEXT = 1024 * MEBIBYTE  # of a text file; the captions of a million pictures have about 500


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` through a temporary file, so that a reader never sees an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with writing(path, unfinished):
        try:
            unfinished.write_bytes(text.encode())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Name `path` in errors about writing: the system's names no file, or the temporary one, `unfinished`."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, unfinished and str(unfinished)) or error.errno is None:
            raise
        raise type(error)(error.errno, f"{error.strerror}, so this is not written", str(path)) from error


def read_text(path: Path, limit: int = MOST_TEXT) -> str:
    """Read a text file in UTF-8. Raise ValueError if it has more than `limit` bytes; no more than these are read."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit:,} bytes, the most that such a file may have; name another file")
    return data.decode()


def cache_folder() -> Path:
    """Return the cache folder for rendered data and statistics. The variable DREAMPORTRAIT_CACHE changes it."""
    return Path(os.environ.get("DREAMPORTRAIT_CACHE", Path.home() / ".cache" / "dreamportrait"))


def check_new(folder: Path) -> None:
    """Raise FileExistsError unless `folder` is missing or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is no empty folder; name another one")


def check_free(folder: Path, overwrite: bool, files: Collection[str]) -> None:
    """Raise WeightsError unless `folder` may be written. An existing one is replaced only if it holds just `files`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WeightsError(f"{folder} exists and is no folder")
    present = sorted(path.name for path in folder.iterdir())
    if present and not overwrite:
        raise WeightsError(f"{folder} exists and is not empty; name another folder, or allow overwriting")
    if foreign := [name for name in present if name not in files]:
        raise WeightsError(f"{folder} holds other files ({listed(foreign)}) and is left alone; name another folder")


def honour_umask(*paths: Path) -> None:
    """Give files the permissions that the user's umask allows. safetensors writes them for the owner alone."""
    mask = os.umask(0o077)  # the only portable way to read it
    os.umask(mask)
    for path in paths:
        path.chmod(0o666 & ~mask)


@contextmanager
def new_folder(folder: str | Path, overwrite: bool, files: Collection[str]) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` at the end, or is removed if the block raises."""
    folder = Path(folder).resolve()
    check_free(folder, overwrite, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{use}") for use in ("new", "old"))
    staging.mkdir()
    try:
        with writing(folder):
            yield staging
            _flush(staging)
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def check_target(path: str | Path, overwrite: bool = False, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> Path:
    """Raise an error unless a file with one of these suffixes may be written to `path`; return the path."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: must end in one of {', '.join(suffixes)}")
    return check_free_file(path, overwrite)


def check_free_file(path: Path, overwrite: bool) -> Path:
    """Raise an error if `path` is a folder, or a file that must stay; return the path."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; name another file, or allow overwriting")
    return path


def check_writable(path: Path) -> None:
    """Raise an error unless files may be written to the folder of `path`, which may be missing as yet."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is no folder; name another file")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: nothing may be written to {folder}; name a file elsewhere")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` at the end, or is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with writing(path, unfinished):
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)

"""Seals of folders: files.json lists size and SHA-256 of all other files, so that missing or changed ones are found."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dreamportrait.core.errors import WeightsError, listed, shown
from dreamportrait.core.files import MEBIBYTE, read_text

SEAL, FORMAT_VERSION = "files.json", 1
REMEDY = "install dreamportrait again, or train them with `make mini-weights` and copy them there"


def seal(folder: Path) -> None:
    """Write files.json. Call it after the last change to the folder."""
    files = {name: _identity(path) for name, path in _files(folder).items()}
    if not files:
        raise WeightsError(f"{folder} holds no files, nothing to seal; name the folder the weights were written to")
    text = json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2) + "\n"
    unfinished = folder.with_name(f".{folder.name}.{SEAL}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / SEAL)


def verify(folder: Path, remedy: str = REMEDY) -> None:
    """Raise WeightsError with every file that is missing, changed or new since the folder was sealed.

    Only files of the recorded size are read.
    """
    known, found = _read_seal(folder / SEAL, remedy), _files(folder)
    problems = {
        "missing": [shown(name) for name in known if name not in found],
        "changed": [shown(name) for name in known if name in found and not _is_same(found[name], known[name])],
        f"not in {SEAL}": [shown(name) for name in found if name not in known],
    }
    if wrong := [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]:
        raise WeightsError(f"{folder} is not as it was sealed; {'; '.join(wrong)}. If you did not change it, {remedy}")


def _read_seal(path: Path, remedy: str) -> dict[str, Any]:
    try:
        values = json.loads(read_text(path, MEBIBYTE))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there, so the weights next to it cannot be checked; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}; {remedy}") from None
    if isinstance(values, dict) and isinstance(files := values.get("files"), dict):
        if (version := values.get("format_version")) == FORMAT_VERSION:
            return files
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    raise WeightsError(f"{path} has no object `files`; {remedy}")


def _files(folder: Path) -> dict[str, Path]:
    """Return every file except the seal, by its path relative to the folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL)
    return {path.relative_to(folder).as_posix(): path for path in found}


def _identity(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(MEBIBYTE):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _is_same(path: Path, known: Any) -> bool:
    return isinstance(known, dict) and known.get("bytes") == path.stat().st_size and known == _identity(path)

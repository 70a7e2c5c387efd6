"""Reads arrays from .npz files, without pickles."""

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import SnapshotError, listed

MAX_BYTES = 4 * 2**30  # unpacked


def read_npz(path: Path, names: Collection[str], optional: Collection[str] = ()) -> dict[str, Array]:
    """Return the arrays of these names. Arrays of objects, which are pickles, are refused."""
    if not path.is_file():
        raise SnapshotError(f"{path} is not there")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            present = {name.removesuffix(".npy") for name in sizes}
            if missing := [name for name in names if name not in present]:
                raise SnapshotError(f"{path} lacks {listed(missing, 12)}")
            wanted = [*names, *(name for name in optional if name in present)]
            if (total := sum(sizes.get(f"{name}.npy", 0) for name in wanted)) > MAX_BYTES:
                raise SnapshotError(f"{path} unpacks to {total} bytes, at most {MAX_BYTES} are read")
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in wanted}
    except SnapshotError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise SnapshotError(f"{path} is no .npz file of plain arrays, or is damaged: {error}") from None

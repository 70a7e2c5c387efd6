"""Training states on disk: written complete or not at all, and read without unpickling objects."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dreamportrait.core.files import writing


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to a temporary file, flush and rename it. The previous state is kept as *.previous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path):
        try:
            _save(unfinished, state)
        except BaseException:
            unfinished.unlink(missing_ok=True)  # a part of it would keep the disk full
            raise
        if path.exists():
            os.replace(path, path.with_name(path.name + ".previous"))
        os.replace(unfinished, path)


def _save(path: Path, state: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch's own, raised while it closes what it could not write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the newest readable state without unpickling objects, or None if nothing was saved.

    A damaged file is renamed to *.damaged; otherwise the next save would keep it as *.previous and drop the good one.
    """
    broken: list[Path] = []
    for candidate in (path, path.with_name(path.name + ".previous")):
        if not candidate.exists():
            continue
        try:
            state = dict(torch.load(candidate, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged archive can raise any exception
            broken.append(candidate)
            cause = error
            continue
        for damaged in broken:
            aside = damaged.with_name(damaged.name + ".damaged")
            os.replace(damaged, aside)
            warnings.warn(f"a training state was damaged, now {aside}; continuing from {candidate}", stacklevel=2)
        return state
    if broken:
        files = " and ".join(map(str, broken))
        remedy = "remove it to start again"
        raise ValueError(f"no training state can be read: {files}, damaged or no state at all; {remedy}") from cause
    return None

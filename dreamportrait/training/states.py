"""Training states on disk: written complete or not at all, and read without unpickling objects."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to a temporary file, flush and rename it. The previous state is kept as *.previous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.replace(path, path.with_name(path.name + ".previous"))
    os.replace(unfinished, path)


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

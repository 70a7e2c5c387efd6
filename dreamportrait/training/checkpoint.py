"""Training state on disk: written beside its place, flushed, then renamed, so that a file is whole or not there."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """The state before this one stays beside it as *.previous."""
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
    """The newest readable state, without unpickling objects. None = nothing was saved."""
    candidates = [path, path.with_name(path.name + ".previous")]
    broken = []
    for candidate in candidates:
        if not candidate.exists():
            continue
        try:
            state = torch.load(candidate, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive raises whatever its damage leads to
            broken.append(f"{candidate}: {error}")
            continue
        return dict(state)
    if broken:
        raise ValueError(f"no training state can be read: {'; '.join(broken)}. Remove the folder to start again")
    return None

"""Triples of edits.py, rendered once and kept on disk, for an editor that is trained on them many times.

    CACHE/edits-SPLIT-HASH/000000.npz    before and after [P, 3, R, R] uint8 of triples 0, 1, ...
    CACHE/edits-SPLIT-HASH/001000.npz    the next ones

Each file appears when it is complete, so rendering that was stopped continues with the files that are there.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld import styled_world, world
from dreamportrait.miniworld.edits import Edit, draw_edit

PART = 1000  # triples of a file


@dataclass(frozen=True)
class EditPool:
    split: str
    edits: list[Edit]  # N
    before: Array  # [N, 3, R, R] uint8
    after: Array  # [N, 3, R, R] uint8

    def __len__(self) -> int:
        return len(self.edits)


def load(split: str, count: int, cache: Path | None = None) -> EditPool:
    """Load the first `count` triples of a split. They are rendered first if `cache` does not hold them."""
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    edits = [draw_edit(split, index) for index in range(count)]
    folder = (cache or world.default_cache() / "styled") / f"edits-{split}-{fingerprint()}"
    parts = list(_parts(edits, folder))
    before, after = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
    return EditPool(split, edits, before, after)


def fingerprint() -> str:
    """Return a hash of all code that determines what the triples are and how they look."""
    here = Path(__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in ("edits", "instructions", "grammar", "captions")]
    return hashlib.sha256(b"".join([*sources, styled_world.fingerprint().encode()])).hexdigest()[:12]


def _parts(edits: list[Edit], folder: Path) -> Iterator[tuple[Array, Array]]:
    """Read the files that hold these triples. Render those that are missing or hold too few."""
    for start in range(0, len(edits), PART):
        wanted, path = edits[start : start + PART], folder / f"{start:06}.npz"
        held = _read(path)
        if held is None or len(held[0]) < len(wanted):
            held = _write(path, wanted)
        yield held


def _read(path: Path) -> tuple[Array, Array] | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["before"], arrays["after"]


def _write(path: Path, edits: list[Edit]) -> tuple[Array, Array]:
    before, after = np.stack([edit.before() for edit in edits]), np.stack([edit.after() for edit in edits])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.npz")
    np.savez(unfinished, before=before, after=after)
    os.replace(unfinished, path)
    return before, after

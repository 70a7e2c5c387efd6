"""Sets of faces with their cameras and captions, rendered once and memory-mapped afterwards.

`train`, `validation` and `test` hold different identities and never a held-out pair of attributes; `combinations` holds
only faces with such a pair. Face i of a split is the same for every count. Choices are made on `validation`;
docs/measuring.md says when `test` is read.
"""

import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array

from dreamportrait.core.files import cache_folder
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.miniworld import attributes as named
from dreamportrait.miniworld import captions as grammar
from dreamportrait.miniworld.attributes import Attributes, is_held_out, read_code, sample_codes
from dreamportrait.miniworld.rendering import Faces, rendered

_HASHED_SEEDS = {"train": 1, "test": 2, "combinations": 3}  # part of fingerprint(): a change renders every split anew
SEEDS = _HASHED_SEEDS | {"validation": 4}  # added later; outside of the hash, so that rendered faces stay valid
YAW, PITCH = 0.5, 0.2  # radians; views are uniform within these angles of the front
RADIUS, FOV = 2.7, 18.837
RESOLUTION = 64
DENIED = 0.2  # share of the captions for training that say what is absent
_ARRAYS = ("images", "depth", "codes", "cameras")


@dataclass(frozen=True)
class World:
    split: str
    images: Array  # [N, 3, R, R] uint8
    depth: Array  # [N, R, R] float16, along the ray; 0 where only background is seen
    codes: Array  # [N, Z_DIM] float32
    cameras: Array  # [N, 25] float32

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def attributes(self) -> list[Attributes]:
        return [read_code(z)[0] for z in self.codes]

    @cached_property
    def vectors(self) -> Array:
        """Attributes and traits as vectors [N, Z_DIM]."""
        return np.stack([named.to_vector(*read_code(z)) for z in self.codes])

    def captions(self, index: int) -> list[str]:
        """Return ten captions. Those for training also say what is absent, so that "without a hat" can be learnt."""
        deny = DENIED if self.split == "train" else 0.0
        return grammar.captions(self.attributes[index], caption_seed(self.split, index), deny=deny)

    def first_facts(self, index: int) -> Attributes:
        """Return the attributes and values that the first of captions() states."""
        return grammar.first_facts(self.attributes[index], caption_seed(self.split, index))

    def evaluation_caption(self, index: int) -> str:
        return grammar.evaluation_caption(self.attributes[index], caption_seed(self.split, index))

    def evaluation_facts(self, index: int) -> Attributes:
        """Return the attributes and values that evaluation_caption() states."""
        return grammar.evaluation_facts(self.attributes[index], caption_seed(self.split, index))


def load(split: str, count: int, cache: Path | None = None, workers: int | None = None) -> World:
    """Load the first `count` faces of a split. They are rendered first if `cache` does not hold them."""
    if split not in SEEDS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SEEDS)}")
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    place = cache or default_cache()
    folder = rendered_before(place, split, count, fingerprint())
    if folder is None:
        folder = place / f"{split}-{count}-{fingerprint()}"
        _render_set(split, count, folder, workers or os.cpu_count() or 1)
    return World(split, *(np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in _ARRAYS))


def rendered_before(place: Path, split: str, count: int, version: str) -> Path | None:
    """Return the smallest rendered set that holds at least `count` faces of a split. None = there is none."""
    found = [path for path in place.glob(f"{split}-*-{version}") if path.name.split("-")[1].isdigit()]
    large = [path for path in found if int(path.name.split("-")[1]) >= count]
    return min(large, key=lambda path: int(path.name.split("-")[1]), default=None)


def default_cache() -> Path:
    return cache_folder() / "miniworld"


def fingerprint() -> str:
    """Return a hash of all code and constants that determine how a face looks.

    The seeds of later splits are not in it. If one of them changes, its folders in the cache must be removed.
    """
    here = Path(__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in ("attributes", "caster", "heads", "faces")]
    constants = repr((_HASHED_SEEDS, YAW, PITCH, RADIUS, FOV, RESOLUTION)).encode()
    return hashlib.sha256(b"".join([*sources, constants])).hexdigest()[:12]


def random_cameras(count: int, seed: int) -> Array:
    """Return labels [count, 25] of views around the front. The first n are the same for every count >= n."""
    return cameras_at(np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, (count, 2)))


def cameras_at(turns: Array) -> Array:  # [N, 2] yaw and pitch, -1 .. 1 -> labels [N, 25]
    """Return cameras whose angles are these shares of the largest ones."""
    yaw, pitch = torch.tensor(math.pi / 2 + turns * (YAW, PITCH), dtype=torch.float32).unbind(1)
    return camera_label(official_pose(yaw, pitch, RADIUS), intrinsics_from_fov(FOV)).numpy()


def identities(split: str, count: int) -> Array:
    """Return the codes [count, Z_DIM] of a split."""
    combination = split == "combinations"
    found: list[Array] = []
    drawn = 0
    while len(found) < count:
        codes = sample_codes(drawn + 4096, SEEDS[split])[drawn:]
        drawn += len(codes)
        found += [z for z in codes if is_held_out(read_code(z)[0]) == combination]
    return np.stack(found[:count])


def caption_seed(split: str, index: int) -> int:
    return SEEDS[split] * 10**9 + index


def _render_set(split: str, count: int, folder: Path, workers: int) -> None:
    codes, cameras = identities(split, count), random_cameras(count, SEEDS[split])
    write_set(folder, rendered(codes, cameras, RESOLUTION, workers), {"codes": codes, "cameras": cameras})


def write_set(folder: Path, faces: Iterable[Faces], arrays: Mapping[str, Array]) -> None:
    """Write images and depth of faces, and arrays that belong to them. The folder appears when it is complete."""
    unfinished = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    unfinished.mkdir(parents=True)
    count = len(arrays["codes"])
    images = np.lib.format.open_memmap(unfinished / "images.npy", "w+", np.uint8, (count, 3, RESOLUTION, RESOLUTION))
    depth = np.lib.format.open_memmap(unfinished / "depth.npy", "w+", np.float16, (count, RESOLUTION, RESOLUTION))
    try:
        done = 0
        for part, far in faces:
            images[done : done + len(part)], depth[done : done + len(part)] = part, far
            done += len(part)
        for name, values in arrays.items():
            np.save(unfinished / f"{name}.npy", values)
        if not folder.exists():  # another process may have rendered the same set first
            os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

"""Sets of faces with their cameras and captions, rendered once and memory-mapped afterwards.

`train` and `test` hold different identities and never a held-out pair of attributes; `combinations` holds nothing
but faces with such a pair. Face i of a split is the same whatever the count.
"""

import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array

from dreamportrait.mini import attributes as named
from dreamportrait.mini import captions as grammar
from dreamportrait.mini.attributes import Attributes, is_held_out, read_code, sample_codes
from dreamportrait.mini.faces import render
from dreamportrait.rendering.cameras import camera_label, intrinsics_from_fov, pose

SEEDS = {"train": 1, "test": 2, "combinations": 3}
YAW, PITCH = 0.5, 0.2  # views are uniform within this of the front
RADIUS, FOV = 2.7, 18.837
RESOLUTION = 64
_ARRAYS = ("images", "depth", "codes", "cameras")
_CHUNK = 500


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
        """Attributes and traits as numbers [N, Z_DIM]."""
        return np.stack([named.to_vector(*read_code(z)) for z in self.codes])

    def captions(self, index: int) -> list[str]:
        return grammar.captions(self.attributes[index], caption_seed(self.split, index))

    def first_facts(self, index: int) -> Attributes:
        """What the first of them says."""
        return grammar.first_facts(self.attributes[index], caption_seed(self.split, index))

    def evaluation_caption(self, index: int) -> str:
        return grammar.evaluation_caption(self.attributes[index], caption_seed(self.split, index))

    def evaluation_facts(self, index: int) -> Attributes:
        """What that caption says."""
        return grammar.evaluation_facts(self.attributes[index], caption_seed(self.split, index))


def load(split: str, count: int, cache: Path | None = None, workers: int | None = None) -> World:
    """The first `count` faces of a split; rendered now if `cache` does not hold them."""
    if split not in SEEDS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SEEDS)}")
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    folder = (cache or default_cache()) / f"{split}-{count}-{fingerprint()}"
    if not folder.exists():
        _render_set(split, count, folder, workers or os.cpu_count() or 1)
    return World(split, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))


def default_cache() -> Path:
    return Path(os.environ.get("DREAMPORTRAIT_CACHE", Path.home() / ".cache" / "dreamportrait")) / "miniworld"


def fingerprint() -> str:
    """Of all code that decides what a face looks like."""
    here = Path(__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in ("attributes", "caster", "heads", "faces")]
    constants = repr((SEEDS, YAW, PITCH, RADIUS, FOV, RESOLUTION)).encode()
    return hashlib.sha256(b"".join([*sources, constants])).hexdigest()[:12]


def random_cameras(count: int, seed: int) -> Array:
    """Labels [count, 25] of views around the front; the first n are the same for every count >= n."""
    turns = np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, (count, 2))
    yaw, pitch = torch.tensor(math.pi / 2 + turns * (YAW, PITCH), dtype=torch.float32).unbind(1)
    return camera_label(pose(yaw, pitch, RADIUS), intrinsics_from_fov(FOV)).numpy()


def identities(split: str, count: int) -> Array:
    """Codes [count, Z_DIM] of a split."""
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
    unfinished = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    unfinished.mkdir(parents=True)
    codes, cameras = identities(split, count), random_cameras(count, SEEDS[split])
    starts = range(0, count, _CHUNK)
    jobs = [(codes[i : i + _CHUNK], cameras[i : i + _CHUNK]) for i in starts]
    images = np.lib.format.open_memmap(unfinished / "images.npy", "w+", np.uint8, (count, 3, RESOLUTION, RESOLUTION))
    depth = np.lib.format.open_memmap(unfinished / "depth.npy", "w+", np.float16, (count, RESOLUTION, RESOLUTION))
    try:
        for start, (part, far) in zip(starts, _mapped(jobs, workers), strict=True):
            images[start : start + len(part)], depth[start : start + len(far)] = part, far
        np.save(unfinished / "codes.npy", codes)
        np.save(unfinished / "cameras.npy", cameras)
        if not folder.exists():  # another process may have been faster; the result is the same
            os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _mapped(jobs: list[tuple[Array, Array]], workers: int) -> Iterator[tuple[Array, Array]]:
    if len(jobs) == 1 or workers == 1:
        yield from map(_render_chunk, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_render_chunk, jobs)


def _render_chunk(job: tuple[Array, Array]) -> tuple[Array, Array]:
    pictures = [render(*read_code(z), camera, RESOLUTION) for z, camera in zip(*job, strict=True)]
    images = np.stack([picture.image.transpose(2, 0, 1) for picture in pictures])  # [n, 3, R, R]
    return images, np.stack([picture.depth for picture in pictures]).astype(np.float16)

"""Sets of plain and styled heads from all sides, with captions, rendered once and memory-mapped afterwards.

Half of the heads of `train`, `validation` and `test` are styled, half stand before pure white, and a tenth of the
pictures is blurred. None of them shows a pair of style and attribute that is held out; `combinations` holds only heads
with such a pair. Head i of a split is the same for every count. Choices are made on `validation`.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.miniworld import styled_captions as grammar
from dreamportrait.miniworld import world
from dreamportrait.miniworld.attributes import Z_DIM, Attributes, is_held_out, read_code
from dreamportrait.miniworld.rendering import Faces, rendered
from dreamportrait.miniworld.styled_captions import Seen
from dreamportrait.miniworld.styles import STYLES, Look, Style
from dreamportrait.miniworld.world import FOV, RADIUS, RESOLUTION

SEEDS = {"train": 11, "validation": 12, "test": 13, "combinations": 14}
STYLED, WHITE, DENIED = 0.5, 0.5, 0.2  # shares of the heads; of the captions for training that say what is absent
BLURRED, BLUR = 0.1, (1.2, 2.2)  # share of the pictures; standard deviation in pixels
NEAR, PITCH = 60.0, 20.0  # degrees: half of the yaws are within NEAR of the front, the others anywhere on the circle

# Pairs of a style and an attribute that it keeps, which training never shows together.
HELD_OUT = (
    ("stone statue", "eyewear", "sunglasses"),
    ("gold statue", "hat", "beanie"),
    ("wooden puppet", "hat", "wide"),
    ("cartoon", "hair_color", "pink"),
    ("elf", "facial_hair", "beard"),
    ("clown", "eyewear", "glasses"),
)
_ARRAYS = ("images", "depth", "codes", "cameras", "looks", "yaws", "blurs")


class Plan(NamedTuple):
    """What a set shows, before it is rendered."""

    codes: Array  # [N, Z_DIM] float32
    cameras: Array  # [N, 25] float32
    looks: Array  # [N, 3] int16, rows of Look
    yaws: Array  # [N] float32, degrees
    blurs: Array  # [N] float32, standard deviation in pixels, 0 = sharp


@dataclass(frozen=True)
class StyledWorld:
    split: str
    images: Array  # [N, 3, R, R] uint8
    depth: Array  # [N, R, R] float16, along the ray; 0 where only background is seen
    codes: Array  # [N, Z_DIM]
    cameras: Array  # [N, 25]
    looks: Array  # [N, 3]
    yaws: Array  # [N]
    blurs: Array  # [N]

    def __len__(self) -> int:
        return len(self.images)

    def look(self, index: int) -> Look:
        return Look.from_row(self.looks[index])

    def seen(self, index: int) -> Seen:
        """Return what the picture shows."""
        look, face = self.look(index), read_code(self.codes[index])[0]
        face |= {"background": "white"} if look.white else {}
        return Seen(face, look.style, float(self.yaws[index]), bool(self.blurs[index]))

    def captions(self, index: int) -> list[str]:
        """Return ten captions. Those for training also say what is absent, so that "without a hat" can be learnt."""
        deny = DENIED if self.split == "train" else 0.0
        return grammar.captions(self.seen(index), caption_seed(self.split, index), deny=deny)

    def evaluation_caption(self, index: int) -> str:
        return grammar.evaluation_caption(self.seen(index), caption_seed(self.split, index))

    def evaluation_facts(self, index: int) -> Attributes:
        """Return the attributes and values that evaluation_caption() states."""
        return grammar.evaluation_facts(self.seen(index), caption_seed(self.split, index))


def load(split: str, count: int, cache: Path | None = None, workers: int | None = None) -> StyledWorld:
    """Load the first `count` heads of a split. They are rendered first if `cache` does not hold them."""
    check_split(split)
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    place = cache or world.default_cache() / "styled"
    folder = world.rendered_before(place, split, count, fingerprint())
    if folder is None:
        folder = place / f"{split}-{count}-{fingerprint()}"
        made = plan(split, count)
        faces = rendered(made.codes, made.cameras, RESOLUTION, workers or os.cpu_count() or 1, made.looks)
        world.write_set(folder, _blurred(faces, made.blurs), made._asdict())
    return StyledWorld(split, *(np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in _ARRAYS))


def check_split(split: str) -> None:
    if split not in SEEDS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SEEDS)}")


def plan(split: str, count: int) -> Plan:
    """Return what the first `count` pictures of a split show. Each depends on the split and its number alone."""
    drawn = [_one(split, index) for index in range(count)]
    codes, looks, angles, blurs = (np.stack(column) for column in zip(*drawn, strict=True))
    return Plan(codes, cameras(angles), looks, angles[:, 0].astype(np.float32), blurs.astype(np.float32))


def cameras(angles: Array) -> Array:  # [N, 2] yaw and pitch in degrees, as those of `orbit` -> labels [N, 25]
    turn = torch.tensor(math.pi / 2 + np.radians(angles[:, 0]))
    height = torch.tensor(math.pi / 2 * (1 - np.sin(np.radians(angles[:, 1]))))  # cosine of polar angle is linear in it
    return camera_label(official_pose(turn, height, RADIUS), intrinsics_from_fov(FOV)).numpy()


def is_style_held_out(style: Style | None, attributes: Attributes) -> bool:
    """Return whether a styled head has a pair of HELD_OUT that can be seen."""
    return style is not None and any(
        style.name == held and attributes[name] == value and name in style.visible(attributes)
        for held, name, value in HELD_OUT
    )


def draw_code(rng: np.random.Generator) -> Array:  # [Z_DIM]
    """Draw the code of an identity whose face has no pair of attributes.HELD_OUT."""
    while True:
        z = rng.standard_normal(Z_DIM, np.float32)
        if not is_held_out(read_code(z)[0]):
            return z


def draw_style(rng: np.random.Generator) -> tuple[Style, int]:
    """Draw a style and one of its hidden variants."""
    found = STYLES[int(rng.integers(len(STYLES)))]
    return found, int(rng.integers(found.variants))


def blurred(image: Array, deviation: float) -> Array:  # [3, R, R] uint8
    """Return a picture blurred by a Gaussian with this standard deviation in pixels."""
    soft = gaussian_filter(image.astype(np.float32), (0, deviation, deviation), mode="nearest")
    found: Array = (soft + 0.5).astype(np.uint8)
    return found


def caption_seed(split: str, index: int) -> int:
    return SEEDS[split] * 10**9 + index


def fingerprint() -> str:
    """Return a hash of all code and constants that determine how the pictures look."""
    here = Path(__file__).parent
    files = ("styles", "style_heads", "style_surfaces", "styled_world")
    sources = [(here / f"{name}.py").read_bytes() for name in files]
    return hashlib.sha256(b"".join([*sources, world.fingerprint().encode()])).hexdigest()[:12]


def _one(split: str, index: int) -> tuple[Array, Array, Array, Array]:
    """Return code [Z_DIM], look [3], yaw and pitch [2], and blur of one picture."""
    rng = np.random.Generator(np.random.PCG64([SEEDS[split], index]))
    while True:
        z = draw_code(rng)
        style, variant = draw_style(rng) if split == "combinations" or rng.random() < STYLED else (None, 0)
        if is_style_held_out(style, read_code(z)[0]) == (split == "combinations"):
            break
    white, blur = rng.random() < WHITE, rng.uniform(*BLUR) * (rng.random() < BLURRED)
    yaw = rng.uniform(-1, 1) * (NEAR if rng.random() < 0.5 else 180.0)
    angles = np.array([yaw, rng.uniform(-1, 1) * PITCH])
    return z, np.array(Look(style, variant, white).row(), np.int16), angles, np.array(blur)


def _blurred(faces: Iterator[Faces], blurs: Array) -> Iterator[Faces]:
    start = 0
    for images, depth in faces:
        for i in np.flatnonzero(blurs[start : start + len(images)]):
            images[i] = blurred(images[i], blurs[start + i])
        start += len(images)
        yield images, depth

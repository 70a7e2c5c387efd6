"""Sharpness: how far small patches of pictures are from those of real pictures. It knows no meaning.

A Frechet distance of CLIP features hardly sees blur, ghosts (two faces drawn over each other) and fine noise. Two
measures of patches of 7 x 7 pixels do:

distance   sliced Wasserstein distance x 1000 between patches of the finest level of a Laplacian pyramid. It sees blur
           and noise, but hardly a light ghost.
nearest    distance x 1000 of a patch to the nearest real one, in pictures of half the size. It sees ghosts, but neither
           blur nor noise, because both vanish when pictures are reduced.

For `distance`, patches are normalised as in "Progressive Growing of GANs" (Karras et al. 2018): each colour has mean
0 and standard deviation 1 over all patches of a set, separately for both sets. It therefore compares the shape of
details and not their contrast. For `nearest`, patches are colours as they are. docs/measuring.md has the values of
pictures that were blurred, mixed or made noisy on purpose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.core.processes import gathered, own
from dreamportrait.geometry.images import antialiased, from_bytes
from dreamportrait.metrics import region
from dreamportrait.metrics.region import REGIONS

PATCH = 7  # pixels
LEAST = 2 * PATCH  # pixels a side, so that a picture of half the size still holds a patch
FINE, COARSE = 64_000, 32_000  # patches of a set
MOST = 128  # patches of one picture
QUERIES = 4000  # patches of a set whose nearest real patch is searched
DIRECTIONS = 128
PATCH_SEED = 0  # of positions and directions; always the same, so that all scores can be compared
_CHUNK = 16  # directions at a time; limits memory
_BATCH = 50
_POSITIONS, _DIRECTIONS = 0, 1  # independent streams of one seed


class Patches(NamedTuple):
    """Patches of N pictures, K and k of each."""

    fine: Tensor  # [N, K, 147] of the finest level of the pyramid
    coarse: Tensor  # [N, k, 147] of the picture at half its size


@dataclass(frozen=True)
class Sharpness:
    distance: float  # sliced Wasserstein distance x 1000
    nearest: float  # mean distance to the nearest real patch x 1000, for each colour of each pixel
    real_distance: float  # the same for other real pictures: the lowest value to expect
    real_nearest: float


# Cutting patches.


def cut(images: Tensor, numbers: Sequence[int], count: int, seed: int, place: str) -> Patches:
    """Cut patches from pictures [n, 3, R, R] in -1 .. 1, which have these numbers in a set of `count`.

    The positions depend only on the seed, the number and the place. In the face's region, the middle of each patch lies
    in the ellipse of region.py.
    """
    check_size(images.shape[-1])
    images = images.float()
    small = antialiased(images, images.shape[-1] // 2)
    return Patches(
        _cut(finest_level(images), numbers, per_picture(FINE, count), seed, place),
        _cut(small, numbers, per_picture(COARSE, count), seed, place),
    )


def check_size(size: int) -> None:
    if size < LEAST:
        raise ValueError(f"pictures are {size} x {size}: sharpness needs at least {LEAST} x {LEAST}; use larger ones")


def per_picture(total: int, count: int) -> int:
    """Return the number of patches of each of `count` pictures, so that all sets have about `total` patches."""
    return min(MOST, max(1, total // count))


def finest_level(images: Tensor) -> Tensor:  # [N, 3, R, R] -> [N, 3, R, R]
    """Return the difference between pictures and their reduced and enlarged versions (Burt and Adelson 1983)."""
    spaced = torch.zeros_like(images)
    spaced[..., ::2, ::2] = _smooth(images)[..., ::2, ::2]
    return images - 4 * _smooth(spaced)


def _smooth(images: Tensor) -> Tensor:
    """Filter with the binomial kernel of 5 x 5 pixels. Pictures are reflected at the border."""
    row = images.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(row, row).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def _cut(images: Tensor, numbers: Sequence[int], count: int, seed: int, place: str) -> Tensor:  # -> [n, count, 147]
    windows = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [n, 3, R - 6, R - 6, 7, 7]
    rows, columns = (each.to(images.device) for each in starts(images.shape[-1], place).nonzero(as_tuple=True))
    found = []
    for window, number in zip(windows, numbers, strict=True):
        rng = np.random.Generator(np.random.PCG64([seed, _POSITIONS, number]))
        drawn = torch.from_numpy(rng.integers(0, len(rows), count)).to(images.device)
        found.append(window[:, rows[drawn], columns[drawn]].transpose(0, 1).flatten(1))  # [count, 147]
    return torch.stack(found)


def starts(size: int, place: str) -> Tensor:  # [R - 6, R - 6], true where the upper left pixel of a patch may lie
    half = PATCH // 2
    middles = region.inside(size) if place == "face" else torch.ones(size, size)
    return middles[half : size - half, half : size - half] > 0


# Comparing two sets.


def compare(made: Patches, real: Patches, seed: int = PATCH_SEED) -> tuple[float, float]:
    """Return the distance and the nearest distance, both x 1000, of N pictures to N real ones."""
    asked = made.coarse[:, : max(1, QUERIES // len(made.coarse))].flatten(0, 1)  # [Q, 147]
    distance = sliced_wasserstein(normalised(made.fine.flatten(0, 1)), normalised(real.fine.flatten(0, 1)), seed)
    return 1000 * distance, 1000 * nearest_distance(asked, real.coarse.flatten(0, 1))


def normalised(patches: Tensor) -> Tensor:  # [M, 147] -> [M, 147]
    """Give each colour mean 0 and standard deviation 1 over all patches. A set without any details stays 0."""
    colors = patches.unflatten(1, (3, -1))  # [M, 3, 49]
    spread, mean = torch.std_mean(colors, (0, 2), keepdim=True, correction=0)
    return ((colors - mean) / spread.clamp_min(1e-6)).flatten(1)


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = PATCH_SEED, directions: int = DIRECTIONS) -> float:
    """Return the Wasserstein-1 distance of two sets [M, D] along a direction, mean over random directions."""
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"sets {list(first.shape)} and {list(second.shape)}: must have one shape [M, D]; cut as many")
    rng = np.random.Generator(np.random.PCG64([seed, _DIRECTIONS]))
    axes = torch.from_numpy(rng.standard_normal((directions, first.shape[1]), np.float32)).to(first)
    parts = []
    for part in F.normalize(axes, dim=1).split(_CHUNK):
        # On a line, the best transport moves the k-th smallest value to the k-th smallest.
        low, high = ((part @ each.T).sort(dim=1).values for each in (first, second))  # [d, M]
        parts.append((low - high).abs().mean(1))
    return float(torch.cat(parts).mean())


def nearest_distance(asked: Tensor, real: Tensor) -> float:  # [Q, D], [M, D]
    """Return the mean distance to the nearest row of `real`, divided by the root of D."""
    found = [torch.cdist(part, real).amin(1) for part in asked.split(500)]
    return float(torch.cat(found).mean()) / asked.shape[1] ** 0.5


# Real pictures.


class RealPatches:
    """Patches of the first `count` of `total` real pictures, kept in memory, and their distance to other real ones."""

    def __init__(self, image: Callable[[int], Tensor], count: int, total: int, seed: int = PATCH_SEED) -> None:
        """image: returns the picture [3, R, R] uint8 of a number."""
        self.image, self.count, self.total, self.seed = image, count, total, seed

    @cached_property
    def places(self) -> dict[str, Patches]:
        return self._of(range(self.count))

    @cached_property
    def floor(self) -> dict[str, tuple[float, float]]:
        """The distances of other real pictures.

        If there are fewer than 2 x count pictures, the first half is compared with the second. Fewer pictures have a
        slightly larger distance.
        """
        if self.total >= 2 * self.count:
            first, second = self.places, self._of(range(self.count, 2 * self.count))
        else:
            half = self.count // 2
            first, second = self._of(range(half)), self._of(range(half, 2 * half))
        return {place: compare(second[place], first[place], self.seed) for place in REGIONS}

    def score(self, made: dict[str, Patches]) -> dict[str, Sharpness]:
        """Compare pictures with the real ones, for each place."""
        return {
            place: Sharpness(*compare(found, self.places[place], self.seed), *self.floor[place])
            for place, found in made.items()
        }

    def _of(self, numbers: range) -> dict[str, Patches]:
        parts: dict[str, list[Patches]] = {place: [] for place in REGIONS}
        for rows in own(len(numbers), _BATCH):
            images = from_bytes(torch.stack([self.image(numbers[i]) for i in rows]))  # [n, 3, R, R]
            for place, found in parts.items():
                found.append(cut(images, [numbers[i] for i in rows], len(numbers), self.seed, place))
        return {place: joined(found, len(numbers)) for place, found in parts.items()}


def joined(parts: list[Patches], count: int) -> Patches:
    """Collect the patches of all `count` pictures, in order, in every process."""
    return Patches(*(gathered(torch.cat(each), count) for each in zip(*parts, strict=True)))


def sharpness(images: Tensor, real: RealPatches) -> dict[str, Sharpness]:  # [N, 3, R, R] in -1 .. 1
    """Measure as many pictures as `real` has, in this process alone."""
    numbers = range(len(images))
    return real.score({place: cut(images, numbers, len(images), real.seed, place) for place in REGIONS})

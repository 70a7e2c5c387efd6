"""How much portraits differ: 0 where a generator has collapsed to one."""

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.geometry.images import antialiased

COMPARED_SIZE = 64  # pixels, so that grain counts little


class Diversity(NamedTuple):
    features: float  # mean of 1 - cosine
    colors: float  # mean absolute difference, of colours from -1 to 1


def within(features: Tensor, images: Tensor) -> Diversity:  # [P, K, C] unit vectors, [P, K, 3, R, R]
    """Over pairs of the same prompt's portraits: other identities, the same words."""
    return Diversity(float(feature_distance(features).mean()), float(color_difference(images).mean()))


def across(features: Tensor, images: Tensor) -> Diversity:  # as above
    """Over pairs of portraits of different prompts, one of each: other identities, other words."""
    return within(features[None, :, 0], images[None, :, 0])


def feature_distance(features: Tensor) -> Tensor:  # [P, K, C] unit vectors -> [P]
    """Mean of 1 - cosine over all pairs of each row."""
    count = _check(features.shape[1])
    features = features.double()
    gram = features @ features.mT  # [P, K, K]
    return 1 - (gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def color_difference(images: Tensor) -> Tensor:  # [P, K, 3, R, R] in -1 .. 1 -> [P]
    """Mean difference of colours over all pairs of each row."""
    count = _check(images.shape[1])
    small = compared(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    pairs = [(small[:, i] - small[:, j]).abs().mean((1, 2, 3)) for i, j in combinations(range(count), 2)]
    return torch.stack(pairs).mean(0)


def compared(images: Tensor) -> Tensor:  # [N, 3, R, R] -> [N, 3, r, r]
    return antialiased(images.clamp(-1, 1), min(images.shape[-1], COMPARED_SIZE))


def _check(count: int) -> int:
    if count < 2:
        raise ValueError(f"{count} pictures of each prompt: differences need at least 2")
    return count

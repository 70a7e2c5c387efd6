"""Diversity: how much portraits differ. It is 0 if the generator has collapsed to a single portrait."""

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.geometry.images import antialiased

COMPARED_SIZE = 64  # pixels; few, so that fine noise has little influence


class Diversity(NamedTuple):
    features: float  # mean of 1 - cosine
    colors: float  # mean absolute difference, of colours from -1 to 1


def within(features: Tensor, images: Tensor) -> Diversity:  # [P, K, C] unit vectors, [P, K, 3, R, R]
    """Return the diversity over pairs of portraits of one prompt: different identities, the same text."""
    return Diversity(float(feature_distance(features).mean()), float(color_difference(images).mean()))


def across(features: Tensor, images: Tensor) -> Diversity:  # as above
    """Return the diversity over pairs of different prompts, one portrait of each: different identities and texts."""
    return within(features[None, :, 0], images[None, :, 0])


def feature_distance(features: Tensor) -> Tensor:  # [P, K, C] unit vectors -> [P]
    """Return the mean of 1 - cosine over all pairs of each row."""
    count = _check(features.shape[1])
    features = features.double()
    gram = features @ features.mT  # [P, K, K]
    return 1 - (gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def color_difference(images: Tensor) -> Tensor:  # [P, K, 3, R, R] in -1 .. 1 -> [P]
    """Return the mean absolute difference of colours over all pairs of each row."""
    count = _check(images.shape[1])
    small = compared(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    pairs = [(small[:, i] - small[:, j]).abs().mean((1, 2, 3)) for i, j in combinations(range(count), 2)]
    return torch.stack(pairs).mean(0)


def compared(images: Tensor) -> Tensor:  # [N, 3, R, R] -> [N, 3, r, r]
    """Shrink pictures to the size at which their colours are compared."""
    return antialiased(images.clamp(-1, 1), min(images.shape[-1], COMPARED_SIZE))


def _check(count: int) -> int:
    if count < 2:
        raise ValueError(f"{count} pictures of each prompt: differences need at least 2")
    return count

"""CLIP R-Precision: how often an image's own caption is the nearest of N captions.

The other N - 1 captions belong to other images. With the arguments exchanged, it is how often a caption's own image is
the nearest of N images.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 256
_Z = 1.959964  # half the width of a 95 % interval, in standard deviations


@dataclass(frozen=True)
class RPrecision:
    value: float  # between 0 and 1
    low: float  # Wilson's 95 % interval
    high: float
    count: int  # queries
    candidates: int


def r_precision(
    queries: Tensor,  # [N, C] unit vectors, of images
    answers: Tensor,  # [N, C] unit vectors, of their captions, in the same order
    num_candidates: int = 100,
    seed: int = 0,  # for drawing the other candidates
) -> RPrecision:
    """Return how often a query's own answer is the nearest of `num_candidates`, the others drawn at random."""
    count = len(queries)
    if queries.shape != answers.shape or queries.ndim != 2:
        raise ValueError(f"features {list(queries.shape)} and {list(answers.shape)}: must both be [N, C]")
    if not 2 <= num_candidates <= count:
        raise ValueError(f"num_candidates={num_candidates}: must be from 2 to the number of pairs, {count}")
    generator = torch.Generator().manual_seed(seed)
    hits = 0.0
    for start in range(0, count, _CHUNK):
        own = torch.arange(start, min(start + _CHUNK, count))
        drawn = candidates(own, count, num_candidates, generator).to(answers.device)  # [n, K]
        # A plain sum is used because a matrix product may round equal candidates differently.
        similarity = (queries[start : start + _CHUNK, None] * answers[drawn]).sum(2)  # [n, K]
        hits += float(first_places(similarity).sum())
    value = hits / count
    return RPrecision(value, *wilson(value, count), count, num_candidates)


def first_places(similarity: Tensor) -> Tensor:  # [N, K], the right candidate in column 0 -> [N] from 0 to 1
    """Return 1 where the right candidate is the nearest, 1 / k where it ties with k - 1 others, and 0 elsewhere."""
    if not similarity.isfinite().all():
        raise ValueError("similarities are NaN or infinite; check the features for NaN and for zero vectors")
    right = similarity[:, :1]
    beaten = (similarity > right).any(1)
    return torch.where(beaten, 0.0, 1 / (similarity == right).sum(1))


def candidates(own: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:  # [n] -> [n, size]
    """Return for each row its own number, followed by different other numbers below `count` in random order."""
    chance = torch.rand(len(own), count, generator=generator)
    chance[torch.arange(len(own)), own] = 2.0  # above all others
    return chance.topk(size, dim=1).indices


def wilson(share: float, count: int, z: float = _Z) -> tuple[float, float]:
    """Return Wilson's interval for a proportion that was observed as `share` of `count` trials."""
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"share={share}, count={count}: must be a share of at least 1 trial")
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)

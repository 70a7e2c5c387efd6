"""The Frechet distance between two sets of features, each modelled as a Gaussian (FID's formula, in float64)."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.core.processes import gathered, processes


class Moments(NamedTuple):
    mean: Tensor  # [C] float64
    covariance: Tensor  # [C, C] float64

    @classmethod
    def of(cls, features: Tensor) -> "Moments":  # [N, C]
        return Sums.of(features).moments()


@dataclass(frozen=True)
class Sums:
    """Sums over features from which the moments are computed, so that the features need not be kept.

    Sums of parts can be added in any order, whatever the sizes of the parts.
    """

    count: int
    mean: Tensor  # [C] float64
    scatter: Tensor  # [C, C] float64, sum of (x - mean)(x - mean)^T

    @classmethod
    def of(cls, features: Tensor) -> "Sums":  # [N, C]
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features must be [N, C] with at least one row, got shape {list(features.shape)}")
        if not features.isfinite().all():
            bad = int((~features.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"row {bad} of the features is not finite")
        features = features.double()
        centred = features - features.mean(0)
        return cls(len(features), features.mean(0), centred.T @ centred)

    def __add__(self, other: object) -> "Sums":
        """Return the sums over both sets of features together.

        The shift between the means is small compared with the sums of squares, so no precision is lost to cancellation.
        """
        if not isinstance(other, Sums):
            return NotImplemented
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        return Sums(count, mean, self.scatter + other.scatter + between)

    def over_processes(self) -> "Sums":
        """Return the sums over the features of all processes."""
        world = processes()[1]
        if world == 1:
            return self
        count = torch.tensor([self.count], device=self.mean.device)
        counts, means, scatters = (gathered(x[None], world) for x in (count, self.mean, self.scatter))
        return reduce(add, (Sums(int(n), *parts) for n, *parts in zip(counts, means, scatters, strict=True)))

    def moments(self) -> Moments:
        if self.count < 2:
            raise ValueError(f"features of {self.count} picture: a distance needs at least two rows, of two pictures")
        return Moments(self.mean.cpu(), self.scatter.cpu() / (self.count - 1))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2).

    The square root of this symmetric product has the same trace as that of C1 C2, and its eigenvalues are real.
    """
    root = _root(first.covariance)
    values = torch.linalg.eigvalsh(root @ second.covariance @ root)
    mixed = values.clamp(min=0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces - 2 * mixed)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

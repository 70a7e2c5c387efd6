"""The Frechet distance between two sets of features, each taken for a Gaussian (FID's formula, in float64)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    mean: Tensor  # [C] float64
    covariance: Tensor  # [C, C] float64

    @classmethod
    def of(cls, features: Tensor) -> "Moments":  # [N, C]
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features must be [N, C] with at least two rows, got shape {list(features.shape)}")
        if not features.isfinite().all():
            bad = int((~features.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"row {bad} of the features is not finite")
        features = features.double()
        return cls(features.mean(0), features.T.cov())


def frechet_distance(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)

    The product in this symmetric form has the same trace of its root as C1 C2, and real eigenvalues.
    """
    root = _root(first.covariance)
    values = torch.linalg.eigvalsh(root @ second.covariance @ root)
    mixed = values.clamp(min=0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces - 2 * mixed)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

"""Volume rendering along rays: from samples sorted by depth to sums per ray."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RaySums(NamedTuple):
    """Sums along each ray. w_k is the weight of interval k; K samples have K-1 intervals."""

    color: Tensor  # [..., Co]  sum of w_k times the colour in the middle of interval k
    depth: Tensor  # [..., 1]   sum of w_k times the depth in the middle of interval k
    weight: Tensor  # [..., 1]   sum of w_k: opacity
    depths: Tensor  # [..., K]   depths of the samples, ascending


def interval_weights(densities: Tensor, depths: Tensor) -> Tensor:
    """Return the weights w_k = alpha_k prod_{j<k} (1 - alpha_j) [..., K-1] of the intervals between samples [..., K].

    The density of an interval is the mean of the densities at its two ends.
    """
    middle = (densities[..., :-1] + densities[..., 1:]) / 2
    alpha = 1 - torch.exp(-F.softplus(middle - 1) * depths.diff(dim=-1))
    passed = F.pad(torch.cumprod(1 - alpha + 1e-10, -1)[..., :-1], (1, 0), value=1.0)
    return alpha * passed


def march(colors: Tensor, densities: Tensor, depths: Tensor) -> RaySums:
    """Return the sums along rays for colours [..., K, Co], densities [..., K] and ascending depths [..., K]."""
    w = interval_weights(densities, depths)[..., None, :]  # [..., 1, K-1]
    color = (w @ ((colors[..., :-1, :] + colors[..., 1:, :]) / 2)).squeeze(-2)
    depth = (w @ ((depths[..., :-1] + depths[..., 1:]) / 2)[..., None]).squeeze(-2)
    return RaySums(color, depth, w.sum(-1), depths)


class RenderedRays(NamedTuple):
    """Results per ray, in the order of the rays given."""

    features: Tensor  # [N, R, Co]  in [-1, 1]
    depth: Tensor  # [N, R, 1]   distance along the ray
    weights: Tensor  # [N, R, 1]   opacity


def finish(sums: RaySums, white_back: bool) -> RenderedRays:
    """Add the background, scale colours to [-1, 1], and divide the depth by the weight to get the mean depth.

    A ray without any weight gets the largest depth of the batch.
    """
    color = sums.color + (1 - sums.weight) if white_back else sums.color
    if sums.depths.numel() == 0:
        return RenderedRays(color, sums.depth, sums.weight)
    empty = sums.weight == 0
    lowest, highest = sums.depths.amin(), sums.depths.amax()
    depth = sums.depth / torch.where(empty, 1.0, sums.weight)
    return RenderedRays(color * 2 - 1, torch.where(empty, highest, depth).clamp(lowest, highest), sums.weight)

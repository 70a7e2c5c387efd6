"""Placement of samples along a ray: box limits, stratified depths, importance depths."""

import torch
import torch.nn.functional as F
from torch import Tensor


def box_limits(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Return the depths, 2 x [..., 1], at which rays [..., 3] enter and leave the centred cube of this side.

    A ray that misses the cube gets (-1, -2).
    """
    parallel = directions == 0  # parallel to a pair of faces: the ray is always or never between them
    slope = 1 / torch.where(parallel, 1.0, directions)
    never = torch.where(origins.abs() <= side / 2, -torch.inf, torch.inf)
    a = torch.where(parallel, never, (-side / 2 - origins) * slope)
    b = torch.where(parallel, torch.inf, (side / 2 - origins) * slope)
    enter = torch.minimum(a, b).amax(-1, keepdim=True)
    leave = torch.maximum(a, b).amin(-1, keepdim=True)
    hit = enter <= leave
    return torch.where(hit, enter, -1.0), torch.where(hit, leave, -2.0)


def auto_limits(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Return `box_limits`, with the limits of rays that miss taken from the rays of the batch that hit.

    As in the released models, a ray that misses spans the smallest to the *largest entry* depth. If no ray hits,
    the limits stay unchanged.
    """
    near, far = box_limits(origins, directions, side)
    hit = far > near
    lowest = torch.where(hit, near, torch.inf).amin()
    highest = torch.where(hit, near, -torch.inf).amax()
    fill = ~hit & hit.any()
    return torch.where(fill, lowest, near), torch.where(fill, highest, far)


def stratified_depths(near: Tensor, far: Tensor, count: int, draws: Tensor | float, disparity: bool = False) -> Tensor:
    """Return sample depths [..., count] between near and far, with one draw per sample.

    Sample k lies at the fraction (k + u) / (count - 1) of [near, far]; the last may exceed far.
    """
    fraction = (torch.arange(count, device=near.device, dtype=near.dtype) + draws) / (count - 1)
    if disparity:  # even in 1/depth
        return 1 / ((1 - fraction) / near + fraction / far)
    return near + (far - near) * fraction


def importance_depths(depths: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Draw depths [..., F] from the smoothed weights [..., S-1] between coarse depths [..., S]. They are unsorted."""
    padded = F.pad(weights, (1, 1), value=-torch.inf)
    widened = torch.maximum(padded[..., :-1], padded[..., 1:])  # [..., S]
    smooth = (widened[..., :-1] + widened[..., 1:]) / 2 + 0.01  # [..., S-1]
    midpoints = (depths[..., :-1] + depths[..., 1:]) / 2  # [..., S-1]
    # The first and the last weight are dropped, but bins start at the first midpoint: the released models were trained
    # this way.
    return inverse_cdf(midpoints, smooth[..., 1:-1], draws).detach()


def inverse_cdf(positions: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Return the positions at which the cdf reaches the draws, in the shape of the draws.

    The cdf of weights [..., M] is piecewise linear with knots at positions[..., :M+1].
    """
    pdf = weights + 1e-5
    cdf = F.pad((pdf / pdf.sum(-1, keepdim=True)).cumsum(-1), (1, 0))  # [..., M+1]
    index = torch.searchsorted(cdf.contiguous(), draws.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=weights.shape[-1])
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    step = cdf_above - cdf_below
    step = torch.where(step < 1e-5, 1.0, step)
    at_below, at_above = positions.gather(-1, below), positions.gather(-1, above)
    return at_below + (draws - cdf_below) / step * (at_above - at_below)

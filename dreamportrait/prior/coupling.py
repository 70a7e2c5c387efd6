"""Which seed's w goes with which picture's w in a batch that the flow learns from.

If seeds and pictures are put together at random, the flow learns little of what stays the same, and portraits lose the
person of the seed. If each seed gets the picture that is nearest to it, seeds depend on texts, which they do not when
the flow is used. Between the two lies conditional optimal transport (Cheng and Schwing 2025, "The Curse of
Conditions"): each seed is given a text of its own at random, and the assignment has the smallest sum of distances
between coordinates and, with a weight, between texts.

Coordinates may hold what a w says, too (content.py). A seed then goes to a picture with the same hair, expression or
hat rather than to one that is merely near in W, and what the text does not name stays.
"""

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor


def assign(x0: Tensor, x1: Tensor, text: Tensor, weight: float) -> Tensor:  # [N, w_dim] twice, [N, Ct] -> [N]
    """Return for each row of x1 and text the row of x0 that the flow starts from.

    Text features are standardised. Distances are relative to the variances of their coordinates. With the weight 0,
    seeds go to the nearest pictures. With a large one they go to pictures that have their own text, or a similar one.
    """
    own = text[torch.randperm(len(text))]  # the texts that the seeds are given
    cost = _distance(x0, x1) + weight * _distance(own, text)
    seeds, pictures = linear_sum_assignment(cost.double().numpy())
    order = torch.empty(len(x0), dtype=torch.long)
    order[torch.from_numpy(pictures)] = torch.from_numpy(seeds)
    return order


def _distance(a: Tensor, b: Tensor) -> Tensor:  # [N, C], [N, C] -> [N, N]
    """Return squared distances between rows, divided by the sum of the variances of b."""
    return torch.cdist(a, b).square() / b.var(0).sum().clamp(min=1e-8)

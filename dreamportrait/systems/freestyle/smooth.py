"""Smooth changes of planes: one number for a square of positions, with bilinear values between them.

A change that is learnt through pictures gets spikes where few rays pass, unless neighbours share their numbers.
"""

import torch.nn.functional as F
from torch import Tensor


def coarse(resolution: int, stride: int) -> int:
    """Return how many numbers a side of a plane gets, one for `stride` positions."""
    return -(-resolution // stride)


def enlarged(change: Tensor, resolution: int) -> Tensor:  # [M, C, h, h] -> [M, C, H, H]
    return F.interpolate(change, size=(resolution, resolution), mode="bilinear", align_corners=False)

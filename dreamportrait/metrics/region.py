"""The region of a picture that is judged.

The paper's starred rows are computed on faces only, because one of its baselines generates nothing else. No face parser
is used here. In aligned pictures the face is always at the same place, so "face" is a fixed ellipse. Everything outside
it is grey, in real and generated pictures alike.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Region = Literal["all", "face"]
REGIONS: tuple[str, ...] = get_args(Region)
CENTRE, RADII = (0.5, 0.52), (0.27, 0.33)  # horizontal and vertical, in widths of the picture


def describe(region: Region) -> str:
    if region == "all":
        return "whole pictures"
    (x, y), (a, b) = CENTRE, RADII
    return f"an ellipse of {2 * a:g} x {2 * b:g} of the picture around ({x:g}, {y:g}), grey around it"


def show(images: Tensor, region: Region) -> Tensor:  # [N, 3, R, R] in -1 .. 1
    """Return the pictures with everything outside the region set to grey."""
    if region == "all":
        return images
    if region not in REGIONS:
        raise ValueError(f"region={region!r}: must be one of {', '.join(REGIONS)}")
    return images * inside(images.shape[-1]).to(images.device)


def inside(size: int) -> Tensor:  # [size, size], 1 in the face's ellipse
    middle = (torch.arange(size) + 0.5) / size
    across = ((middle - CENTRE[0]) / RADII[0]).square()
    down = ((middle - CENTRE[1]) / RADII[1]).square()
    return (down[:, None] + across[None, :] <= 1).float()

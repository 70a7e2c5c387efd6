"""Pictures at other sizes."""

import torch.nn.functional as F
from torch import Tensor

from eg3d_ops._checks import check_int, check_tensor


def antialiased(images: Tensor, size: int) -> Tensor:  # [N, C, H, W] -> [N, C, size, size]
    """A real picture at the resolution of raw images: the counterpart of what the renderer makes."""
    check_tensor("images", images, 4, "[N, C, H, W]")
    size = check_int("size", size, 1)
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)

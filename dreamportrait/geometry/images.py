"""Resizes picture tensors and converts them to and from bytes."""

import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from torch import Tensor

from eg3d_ops._checks import check_int, check_tensor


def antialiased(images: Tensor, size: int) -> Tensor:  # [N, C, H, W] -> [N, C, size, size]
    """Resize pictures with antialiasing, for example real pictures to the resolution of raw images."""
    check_tensor("images", images, 4, "[N, C, H, W]")
    size = check_int("size", size, 1)
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def to_bytes(images: Tensor) -> Array:
    """Convert [N, 3, R, R] in -1 .. 1 to [N, R, R, 3] of uint8."""
    return (images.detach() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def as_saved(images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1, or a little beyond
    """Round colours to 8 bits, so that they compare with real pictures from files."""
    return (images.float() * 127.5 + 128).clamp(0, 255).floor().div(127.5).sub(1)


def from_bytes(images: Tensor) -> Tensor:  # uint8 -> -1 .. 1
    return images.float().div(127.5).sub(1)

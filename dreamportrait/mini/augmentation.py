"""Image augmentation that keeps captions true. Generated pictures differ from rendered ones in the same ways."""

import torch
import torch.nn.functional as F
from torch import Tensor

_GROUPS = 8  # parts of a batch; the pictures of a part share their shift and blur


def augment(
    images: Tensor,  # [N, 3, R, R] in -1 .. 1
    *,
    shift: int = 2,  # pixels
    noise: float = 0.08,  # largest standard deviation
    blurred: float = 0.35,  # share of pictures that are blurred: made smaller and enlarged again
    reduction: float = 2.2,  # largest factor by which they are made smaller
    colour: float = 0.05,  # largest change of the brightness and of each channel's gain
    mirrored: bool = True,  # whether half of them are mirrored; False if captions say left and right
) -> Tensor:
    """Return the pictures shifted, blurred, mirrored, recoloured and with noise, each at random."""
    images = torch.cat([_degrade(_move(part, shift), blurred, reduction) for part in images.chunk(_GROUPS)])
    count = len(images)
    if mirrored:
        flip = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
        images = torch.where(flip, images.flip(3), images)
    gain = 1 + colour * (2 * torch.rand(count, 3, 1, 1, device=images.device) - 1)
    offset = colour * (2 * torch.rand(count, 1, 1, 1, device=images.device) - 1)
    level = noise * torch.rand(count, 1, 1, 1, device=images.device)
    return ((images + 1) * gain - 1 + offset + level * torch.randn_like(images)).clamp(-1, 1)


def _move(images: Tensor, shift: int) -> Tensor:
    """Shift the pictures by up to `shift` pixels and repeat the border pixels."""
    dx, dy = torch.randint(2 * shift + 1, (2,)).tolist()
    size = images.shape[2]
    return F.pad(images, (shift,) * 4, mode="replicate")[:, :, dy : dy + size, dx : dx + size]


def _degrade(images: Tensor, share: float, reduction: float) -> Tensor:
    """Blur the pictures with probability `share`, by making them smaller and enlarging them again."""
    chance, amount = torch.rand(2).tolist()
    if chance >= share:
        return images
    size = images.shape[2]
    small = round(size / (1 + (reduction - 1) * amount))
    images = F.interpolate(images, (small, small), mode="bilinear", antialias=True)
    return F.interpolate(images, (size, size), mode="bicubic")

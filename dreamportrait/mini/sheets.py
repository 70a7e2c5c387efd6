"""Tables of pictures."""

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor


def to_bytes(images: Tensor) -> Array:
    """[N, 3, R, R] in -1 .. 1 -> [N, R, R, 3] uint8."""
    return (images.detach() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def depth_to_images(depth: Tensor, near: float, far: float) -> Tensor:
    """[N, 1, R, R] -> grey [N, 3, R, R]; near is bright."""
    return (1 - 2 * ((depth - near) / (far - near)).clamp(0, 1)).expand(-1, 3, -1, -1)


def save_sheet(rows: list[Tensor], path: Path, scale: int = 1, colors: int | None = None) -> None:
    """Each row [N, 3, R, R], all of one size; `colors`: quantised to so many, for small files."""
    lines = [np.concatenate(list(to_bytes(row)), 1) for row in rows]
    picture = Image.fromarray(np.concatenate(lines, 0))
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    if colors is not None:
        picture = picture.quantize(colors)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)

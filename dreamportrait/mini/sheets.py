"""Tables of pictures, small enough to be kept beside weights."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from dreamportrait.export.sheets import depth_to_images, save_picture, tiled, to_bytes

__all__ = ["depth_to_images", "save_sheet", "to_bytes"]


def save_sheet(rows: list[Tensor], path: Path, scale: int = 1, colors: int | None = None) -> None:
    """Each row [N, 3, R, R], all of one size; `colors`: quantised to so many, for small files."""
    picture = tiled(rows)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    if colors is not None:
        picture = picture.quantize(colors)
    save_picture(picture, path, overwrite=True)

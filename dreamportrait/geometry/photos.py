"""Photographs as input of a network: square, of its size, colours from -1 to 1.

Nothing finds the face: a photograph must be cropped as the network's training pictures are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamportrait.geometry.images import antialiased
from dreamportrait.geometry.pictures import opened


def read_photo(
    photo: str | Path | Image.Image,
    size: int,
    *,
    crop: bool = False,  # cut the middle out of a picture that is not square; otherwise it is refused
    least: int = 1,  # pixels of the shorter side; smaller pictures are refused
) -> Tensor:  # [1, 3, size, size] in -1 .. 1
    """Read a photo that is cropped as the training pictures are: square, the face in the middle."""
    if not isinstance(photo, str | Path):
        return _pixels(_squared(photo, crop, least, "the photo"), size)
    with _opened(Path(photo)) as file:
        check_size(file, crop, least, str(photo))
        found = file.convert("RGB")
    return _pixels(_squared(found, crop, least, str(photo)), size)


def check_photo(photo: Path, *, crop: bool = False, least: int = 1) -> None:
    """Raise an error unless `read_photo` would read a file. Only its header is read."""
    with _opened(photo) as file:
        check_size(file, crop, least, str(photo))


@contextmanager
def _opened(photo: Path) -> Iterator[Image.Image]:
    if not photo.is_file():
        raise FileNotFoundError(f"{photo} is not there; name a picture")
    try:
        with opened(photo) as file:
            yield file
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{photo} is no picture that can be read: {error}") from None


def check_size(photo: Image.Image, crop: bool, least: int, name: str) -> None:
    """Raise ValueError unless a photo is square, or may be cropped, and is large enough."""
    if photo.width != photo.height and not crop:
        raise ValueError(
            f"{name} has {photo.width} x {photo.height} pixels: it must be square and cropped as the training "
            "pictures are"
        )
    if min(photo.size) < least:
        raise ValueError(f"{name} has {photo.width} x {photo.height} pixels: at least {least} a side are needed")


def _squared(photo: Image.Image, crop: bool, least: int, name: str) -> Image.Image:
    check_size(photo, crop, least, name)
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side)) if crop else photo


def _pixels(photo: Image.Image, size: int) -> Tensor:  # [1, 3, size, size]
    try:
        pixels = np.array(photo.convert("RGB"), np.float32)
    except ValueError as error:
        raise ValueError(f"the photo's colours ({photo.mode}) cannot be read as RGB: {error}; save it as RGB") from None
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    return image if photo.width == size else antialiased(image, size).clamp(-1, 1)

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

DEEP = ("I", "F", "I;16")  # modes with more than 8 bits, whose bright parts a conversion to RGB would cut off


def read_photo(
    photo: str | Path | Image.Image,
    size: int,
    *,
    crop: bool | None = None,  # True: cut the middle out of a picture that is not square; otherwise it is refused
    least: int = 1,  # pixels of the shorter side; smaller pictures are refused
) -> Tensor:  # [1, 3, size, size] in -1 .. 1
    """Read a photo that is cropped as the training pictures are: square, the face in the middle.

    crop=False: the error for a picture that is not square names the option --crop.
    """
    if not isinstance(photo, str | Path):
        check_picture(photo, crop, least, "the photo")
        return _pixels(photo, size)
    with _opened(Path(photo)) as file:
        check_picture(file, crop, least, str(photo))
        return _pixels(file, size)


def check_photo(photo: Path, *, crop: bool | None = None, least: int = 1) -> None:
    """Raise an error unless `read_photo` would read a file. Only its header is read."""
    with _opened(photo) as file:
        check_picture(file, crop, least, str(photo))


@contextmanager
def _opened(photo: Path) -> Iterator[Image.Image]:
    if not photo.is_file():
        raise FileNotFoundError(f"{photo} is not there; name a picture")
    try:
        with opened(photo) as file:
            yield file
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{photo} is no picture that can be read: {error}") from None


def check_picture(photo: Image.Image, crop: bool | None, least: int, name: str) -> None:
    """Raise ValueError unless a photo is square, or may be cropped, is large enough, and has colours of 8 bits."""
    if photo.mode in DEEP:
        raise ValueError(f"{name} has grey levels of more than 8 bits ({photo.mode}); save it as RGB with 8 bits")
    size = f"{photo.width} x {photo.height} pixels"
    if photo.width != photo.height and not crop:
        remedy = "; --crop (crop=True) cuts its middle out" if crop is not None else ""
        raise ValueError(f"{name} has {size}: it must be square and cropped as the training pictures are{remedy}")
    if min(photo.size) < least:
        raise ValueError(f"{name} has {size}: at least {least} a side are needed")


def _pixels(photo: Image.Image, size: int) -> Tensor:  # [1, 3, size, size]
    """Return the middle of a picture in the wanted size."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    middle = photo.convert("RGB").crop((left, top, left + side, top + side))
    image = torch.from_numpy(np.array(middle, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    return image if side == size else antialiased(image, size).clamp(-1, 1)

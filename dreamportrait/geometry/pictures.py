"""Opens picture files. Sizes are known from the header, before anything is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

LARGEST = 8192  # pixels on a side; decoded, such a picture has 200 MB


@contextmanager
def opened(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """Yield a picture whose pixels are not decoded yet. Raise DecompressionBombError if it is larger than LARGEST."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is the lower one
        picture = Image.open(file)
    with picture:
        if max(picture.size) > LARGEST:
            width, height = picture.size
            raise Image.DecompressionBombError(f"{width} x {height} pixels; at most {LARGEST} x {LARGEST} are read")
        yield picture

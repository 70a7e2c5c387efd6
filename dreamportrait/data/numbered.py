"""A folder of numbered pictures, one for each caption of a data set: what another system made of the captions.

The name of a file is the number of its caption, from 0, with or without leading zeros: 0.png, 00017.jpg. Pictures are
PNG or JPEG, in RGB with 8 bits. Files with other endings are ignored.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import DataError, listed
from dreamportrait.geometry.pictures import opened

SUFFIXES = (".png", ".jpg", ".jpeg")
RULE = "name each file after the number of its caption, from 0: 0.png, 1.png or 00000.jpg, 00001.jpg"


class NumberedPictures:
    """The pictures 0 to N - 1 of a folder. Names, sizes and modes of all are checked at once, pixels when read."""

    def __init__(self, folder: Path, resolution: int, count: int | None = None) -> None:
        """resolution: that of the real pictures. count: the number of pictures to use; None = all."""
        self.folder, self.resolution = folder, resolution
        found = by_number(folder)
        self.count = len(found) if count is None else count
        if missing := [str(number) for number in range(self.count) if number not in found]:
            raise DataError(
                f"{folder}: pictures {listed(missing)} of {self.count} are missing; every number from 0 to "
                f"{self.count - 1} must be there: add them, or give --num-images"
            )
        self.paths = [found[number] for number in range(self.count)]
        self._check_sizes()

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Tensor:  # [3, R, R] uint8
        try:
            with opened(self.paths[index]) as picture:
                pixels = np.array(picture.convert("RGB"))
        except Exception as error:  # damaged files raise many kinds of errors
            raise DataError(f"{self.paths[index]} cannot be read: {error}; write it again") from None
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def _check_sizes(self) -> None:
        size, wrong = (self.resolution, self.resolution), []
        for path in self.paths:
            try:
                with opened(path) as picture:
                    if picture.size != size or picture.mode != "RGB":
                        wrong.append(f"{path.name} is {picture.width} x {picture.height} {picture.mode}")
            except Exception as error:
                raise DataError(f"{path} cannot be read: {error}; write it again") from None
        if wrong:
            raise DataError(
                f"{self.folder}: {listed(wrong, 3)}; pictures must be {size[0]} x {size[1]} RGB, as the real ones of "
                "the data set: resize or convert them"
            )


def by_number(folder: Path) -> dict[int, Path]:
    """Return the pictures of a folder by their numbers. Raise DataError if a name breaks the rule."""
    if not folder.is_dir():
        raise DataError(f"images {folder} is no folder; name a folder of pictures, {RULE}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"images {folder} holds no picture ({', '.join(SUFFIXES)}); {RULE}")
    if wrong := [path.name for path in paths if not (path.stem.isascii() and path.stem.isdigit())]:
        raise DataError(f"{folder}: {listed(wrong)}: no numbers; {RULE}")
    if twice := [str(number) for number, n in Counter(int(path.stem) for path in paths).items() if n > 1]:
        raise DataError(f"{folder}: several files for the numbers {listed(twice)}; keep one of each")
    return {int(path.stem): path for path in paths}

"""Tests of folders of numbered pictures, and of the errors for folders that break the rule."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamportrait.core.errors import DataError
from dreamportrait.data.numbered import NumberedPictures


def write(folder: Path, *names: str, size: int = 8, mode: str = "RGB") -> None:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.full((size, size, 3), i, np.uint8)).convert(mode).save(folder / name)


def test_numbers_decide_the_order(tmp_path: Path) -> None:
    write(tmp_path, "2.png", "0000.png", "01.JPG")
    (tmp_path / "captions.json").write_text("[]")  # other files may lie there
    found = NumberedPictures(tmp_path, 8)
    assert len(found) == 3 and [path.name for path in found.paths] == ["0000.png", "01.JPG", "2.png"]
    assert torch.equal(found.image(2), torch.zeros(3, 8, 8, dtype=torch.uint8))
    assert [int(found.image(i).max()) for i in range(2)] == [1, 2]
    assert len(NumberedPictures(tmp_path, 8, 2)) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("0.png", "2.png", "3.png", "5.png"), "pictures 1 of 4 are missing; every number from 0 to 3"),
        (("0.png", "a.png"), "a.png: no numbers; name each file after the number of its caption"),
        (("0.png", "1.png", "01.jpg"), "several files for the numbers 1; keep one of each"),
        ((), r"holds no picture \(.png, .jpg, .jpeg\); name each file"),
    ],
)
def test_wrong_names(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        NumberedPictures(tmp_path, 8)


def test_wrong_pictures(tmp_path: Path) -> None:
    write(tmp_path, "0.png")
    with pytest.raises(DataError, match="pictures 1, 2 of 3 are missing"):
        NumberedPictures(tmp_path, 8, 3)
    with pytest.raises(DataError, match="0.png is 8 x 8 RGB; pictures must be 16 x 16 RGB.*resize or convert"):
        NumberedPictures(tmp_path, 16)
    write(tmp_path, "0.png", mode="L")
    with pytest.raises(DataError, match="0.png is 8 x 8 L"):
        NumberedPictures(tmp_path, 8)
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="0.png cannot be read"):
        NumberedPictures(tmp_path, 8)
    with pytest.raises(DataError, match="is no folder; name a folder of pictures"):
        NumberedPictures(tmp_path / "none", 8)


def test_a_damaged_picture(tmp_path: Path) -> None:
    """The header is checked at once, the pixels when they are read."""
    write(tmp_path, "0.png", size=64)
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(content[: len(content) // 2])
    found = NumberedPictures(tmp_path, 64)
    with pytest.raises(DataError, match="0.png cannot be read"):
        found.image(0)

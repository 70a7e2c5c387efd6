"""Tests of sheets of portraits: their pixels, their text, and writing them to disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from tiny_pipeline import write_portrait
from torch import Tensor

from dreamportrait.core import files
from dreamportrait.core.files import PICTURE_SUFFIXES
from dreamportrait.export.sheets import (
    Row,
    beside,
    check_target,
    depth_to_images,
    draw_sheet,
    save_picture,
    save_sheet,
    wrapped,
)
from dreamportrait.geometry.images import to_bytes
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

FONT = ImageFont.load_default(size=12)
TEXT = "a woman with red hair and glasses who looks at the camera, on a white background"


def plain(*values: float, size: int = 64) -> Tensor:
    """Return pictures of one uniform grey each."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, size, size)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


# Pixels.


def test_colours() -> None:
    found = to_bytes(plain(-1.5, -1, 0, 1, 1.5, size=1))[:, 0, 0, 0]
    assert found.tolist() == [0, 0, 128, 255, 255]


def test_near_is_bright() -> None:
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None]
    grey = depth_to_images(depth, 2, 3)
    assert grey.shape == (4, 3, 1, 1) and grey[:, 0, 0, 0].tolist() == [1, 1, -1, -1]


def test_where_pictures_are() -> None:
    sheet = np.asarray(draw_sheet([Row("one", plain(-1, 1)), Row("two", plain(0, -1))]))
    assert sheet.shape == (256, 192 + 256, 3)  # 64 is magnified to 128
    for row, column, value in ((0, 0, 0), (0, 1, 255), (1, 0, 128), (1, 1, 0)):
        tile = sheet[row * 128 : (row + 1) * 128, 192 + column * 128 : 192 + (column + 1) * 128]
        assert (tile == value).all()


def test_texts_are_at_the_left_of_their_rows() -> None:
    sheet = np.asarray(draw_sheet([Row("", plain(1)), Row(TEXT, plain(1))]))
    ink = (sheet < 128).any((1, 2))
    assert not ink[:128].any() and ink[140:240].any() and not ink[250:].any()
    assert not (sheet[:, 186:] < 128).any()  # no text reaches the pictures


def test_no_column_without_texts() -> None:
    assert draw_sheet([Row("", plain(1, size=128))]).size == (128, 128)


def test_small_pictures_among_large_ones() -> None:
    checks = torch.ones(1, 3, 32, 32)
    checks[..., :16] = -1
    sheet = np.asarray(draw_sheet([Row("", plain(1, size=256)), Row("", checks)]))
    assert sheet.shape == (512, 256, 3)
    assert (sheet[256:, :96] == 0).all() and (sheet[256:, 160:] == 255).all()
    edge = sheet[300, 96:160, 0].astype(int)
    assert len(set(edge.tolist())) > 4  # enlarged smoothly, not as blocks


def test_rows_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match=r"rows of \[1, 2\] pictures"):
        draw_sheet([Row("", plain(0)), Row("", plain(0, 0))])
    with pytest.raises(ValueError, match=r"0 rows of \[\] pictures"):
        draw_sheet([])
    with pytest.raises(ValueError, match=r"1 rows of \[0\] pictures"):
        draw_sheet([Row("", plain(0)[:0])])


def test_sheets_beside_each_other() -> None:
    first = draw_sheet([Row("one", plain(-1, 0, size=128)), Row("two", plain(0, -1, size=128))])
    second = draw_sheet([Row("", plain(0, 0, size=128)), Row("", plain(-1, 0, size=128))])
    whole = np.asarray(beside([("before", first), ("after", second)]))
    top, gap = 256 // 12, 256 // 32
    assert whole.shape == (top + 256, 192 + 256 + gap + 256, 3)
    assert np.array_equal(whole[top:, : 192 + 256], np.asarray(first))
    assert np.array_equal(whole[top:, -256:], np.asarray(second))
    assert (whole[:, 192 + 256 : -256] == 255).all()
    ink = (whole[:top] < 128).any((0, 2)).nonzero()[0]  # of both titles, each centred above its pictures
    for left, right in ((192, 448), (448 + gap, 704 + gap)):
        title = ink[(ink >= left) & (ink < right)]
        assert len(title) and abs((title[0] + title[-1]) / 2 - (left + right) / 2) <= 3
    assert ink[0] > 192


# Text.


def test_lines_hold_all_words_and_are_not_too_long() -> None:
    lines = wrapped(TEXT, FONT, 100, lines=20).split("\n")
    assert " ".join(lines) == TEXT and len(lines) > 3
    assert all(FONT.getlength(line) <= 100 for line in lines)
    # Each line is as long as possible: the next word would not have fitted.
    after = [line.split()[0] for line in lines[1:]]
    assert all(FONT.getlength(f"{line} {word}") > 100 for line, word in zip(lines[:-1], after, strict=True))


def test_too_much_text_ends_in_dots() -> None:
    lines = wrapped(TEXT, FONT, 100, lines=2).split("\n")
    assert len(lines) == 2 and lines[1].endswith("…")


@pytest.mark.parametrize("text", ["x" * 60, "一个红头发戴眼镜的女人看着镜头白色背景", "\N{GRINNING FACE}" * 30])
def test_text_without_spaces_is_broken_anywhere(text: str) -> None:
    lines = wrapped(text, FONT, 100, lines=50).split("\n")
    assert "".join(lines) == text and len(lines) > 1
    assert all(FONT.getlength(line) <= 100 for line in lines)
    draw_sheet([Row(text, plain(0))])


def test_no_text() -> None:
    assert wrapped("  \n ", FONT, 100, lines=3) == ""


# Files.


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_written_and_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"sheet{suffix}"
    save_picture(draw_sheet([Row("", plain(0.5))]), path)
    found = read(path)
    assert found.shape == (128, 128, 3) and abs(int(found[5, 5, 0]) - 191) <= 1
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="name another file, or allow overwriting"):
        save_picture(draw_sheet([Row("", plain(0))]), path)
    assert path.read_bytes() == b"mine"
    save_picture(draw_sheet([Row("", plain(0))]), path, overwrite=True)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"mine")

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save_picture(draw_sheet([Row("", plain(0))]), path, overwrite=True)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_targets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sheet\.pdf: must end in one of \.png"):
        check_target(tmp_path / "sheet.pdf")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_target(tmp_path / "folder.png", overwrite=True)


def test_sheets_of_the_miniature_world(tmp_path: Path) -> None:
    path = tmp_path / "card" / "sheet.png"
    for colors in (None, 8):
        save_sheet([plain(-1, 1), plain(0, 0)], path, scale=2, colors=colors)
        found = read(path)
        assert found.shape == (256, 256, 3)
        assert found[0, 0, 0] == 0 and found[0, 255, 0] == 255 and found[255, 0, 0] == 128


# Portraits.


@pytest.mark.lengthy
def test_sheets_of_portraits(tmp_path: Path) -> None:
    pipe = DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path / "portrait"))
    portraits = pipe(["a man", TEXT], num_views=3)
    sheet = np.asarray(portraits.sheet())
    assert sheet.shape == (256, 192 + 3 * 128, 3)
    shown = Image.fromarray(sheet[128:256, 192 + 128 : 192 + 256]).resize((16, 16), Image.Resampling.BOX)
    assert np.abs(np.asarray(shown).astype(int) - portraits.images[1, 1]).mean() < 12  # enlarged smoothly, then reduced

    deep = np.asarray(portraits.sheet(depth=True))
    assert deep.shape == (512, 192 + 3 * 128, 3) and np.array_equal(deep[:128], sheet[:128])
    strip = Image.fromarray(deep[128:256, 192:]).resize((24, 8), Image.Resampling.BOX)
    greys = np.asarray(strip).reshape(8, 3, 8, 3).transpose(1, 0, 2, 3)  # a value for each of 8 x 8 rays
    depth = portraits.depth[0, :, 0].numpy()
    assert (greys[..., 0] == greys[..., 1]).all()
    assert np.corrcoef(greys[..., 0].ravel().astype(float), depth.ravel())[0, 1] < -0.95
    every = np.concatenate([deep[128:256, 192:], deep[384:, 192:]])
    assert every.min() < 20 and every.max() > 235  # the nearest and the farthest of the whole sheet

    portraits[1].save_sheet(tmp_path / "one.png", depth=True)
    portraits.save_sheet(tmp_path / "all.png")
    assert read(tmp_path / "one.png").shape == (256, 192 + 3 * 128, 3)
    assert np.array_equal(read(tmp_path / "all.png"), sheet)

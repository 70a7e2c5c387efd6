"""Sheets of pictures: rows of portraits with their prompts, plain tables, and atomic writing of picture files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dreamportrait.core.files import check_target, replacing
from dreamportrait.export.provenance import Claim, mark
from dreamportrait.geometry.images import to_bytes

SMALLEST = 128  # pixels; smaller pictures are magnified to at least this
LARGEST = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}  # pixels on a side that these formats can hold


class Row(NamedTuple):
    text: str
    images: Tensor  # [V, 3, R, R] in -1 .. 1


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows of equally many pictures, each with its text at the left. All pictures get the size of the first."""
    if not rows or not all(len(row.images) for row in rows):
        raise ValueError(f"{len(rows)} rows of {[len(row.images) for row in rows]} pictures: give at least one of each")
    if len({len(row.images) for row in rows}) > 1:
        raise ValueError(f"rows of {[len(row.images) for row in rows]} pictures: a sheet has equally many in each row")
    size, labels = _sizes(rows[0].images.shape[-1], any(row.text for row in rows))
    margin = size // 16
    sheet = Image.new("RGB", (labels + size * len(rows[0].images), size * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=size / 10)
    for i, row in enumerate(rows):
        text = wrapped(row.text, font, labels - 2 * margin, lines=7)
        draw.multiline_text((margin, i * size + size // 2), text, "black", font, anchor="lm")
        for j, pixels in enumerate(to_bytes(row.images)):
            sheet.paste(enlarged(Image.fromarray(pixels), size), (labels + j * size, i * size))
    return sheet


def _sizes(size: int, texts: bool) -> tuple[int, int]:
    """Return the sizes of pictures on a sheet, and of the column of texts."""
    size *= -(-SMALLEST // size)
    return size, 3 * size // 2 if texts else 0


def check_room(path: Path, rows: int, columns: int, size: int) -> None:
    """Raise ValueError if a file of this format cannot hold a sheet with texts. size: of the pictures, in pixels."""
    size, labels = _sizes(size, texts=True)
    width, height, most = labels + size * columns, size * rows, LARGEST.get(path.suffix.lower())
    if most is not None and max(width, height) > most:
        raise ValueError(
            f"{path}: a sheet of {rows} x {columns} pictures has {width} x {height} pixels, a {path.suffix} at most "
            f"{most} on a side; ask for less, or name a .png"
        )


def enlarged(picture: Image.Image, width: int) -> Image.Image:
    """Scale a picture smoothly to this width. A picture of this width is returned unchanged."""
    if picture.width == width:
        return picture
    return picture.resize((width, picture.height * width // picture.width), Image.Resampling.BICUBIC)


def beside(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Join sheets of equally many rows from left to right, with a title over each. Only the first may have texts."""
    pictures, height = min(sheet.width for _, sheet in sheets), sheets[0][1].height
    top, gap = pictures // 12, pictures // 32
    width = sum(sheet.width for _, sheet in sheets) + gap * (len(sheets) - 1)
    whole, right = Image.new("RGB", (width, top + height), "white"), 0
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(size=top / 2)
    for title, sheet in sheets:
        whole.paste(sheet, (right, top))
        right += sheet.width
        draw.text((right - pictures // 2, top // 2), title, "black", font, anchor="mm")
        right += gap
    return whole


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, lines: int) -> str:
    """Break text into lines of at most `width` pixels. Text beyond the last line is cut."""
    found: list[str] = []
    for word in text.split():
        for piece in _pieces(word, font, width):
            longer = f"{found[-1]} {piece}" if found else piece
            if found and font.getlength(longer) <= width:
                found[-1] = longer
            else:
                found.append(piece)
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1][:-1] + "\N{HORIZONTAL ELLIPSIS}"]
    return "\n".join(found)


def _pieces(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Split a word that does not fit on a line, because not all scripts put spaces between words."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def depth_to_images(depth: Tensor, near: float, far: float) -> Tensor:
    """Turn depth [N, 1, R, R] into grey pictures [N, 3, R, R]; near is bright."""
    return (1 - 2 * ((depth - near) / (far - near)).clamp(0, 1)).expand(-1, 3, -1, -1)


def tiled(rows: Sequence[Tensor]) -> Image.Image:
    """Draw rows [N, 3, R, R] of one size, without text."""
    lines = [rearrange(to_bytes(row), "n h w c -> h (n w) c") for row in rows]
    return Image.fromarray(np.concatenate(lines))


def save_picture(
    picture: Image.Image, path: str | Path, overwrite: bool = False, *, claim: Claim | None = None
) -> None:
    """Write a picture by way of a temporary file, so that the file is either complete or absent.

    claim: what the file says about its origin. None = nothing.
    """
    path = check_target(path, overwrite)
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[path.suffix.lower()], optimize=True)
    data = content.getvalue() if claim is None else mark(content.getvalue(), claim)
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def save_sheet(rows: list[Tensor], path: Path, scale: int = 1, colors: int | None = None) -> None:
    """Save rows [N, 3, R, R] of one size. `colors`: quantise to this many, for small files."""
    picture = tiled(rows)
    picture = enlarged(picture, picture.width * scale)
    if colors is not None:
        picture = picture.quantize(colors)
    save_picture(picture, path, overwrite=True)

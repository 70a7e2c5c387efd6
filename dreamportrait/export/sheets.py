"""Sheets of portraits: a row per prompt, its text at the left, its views beside it."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SMALLEST = 128  # pixels; smaller pictures are magnified to at least this
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Row(NamedTuple):
    text: str
    images: Tensor  # [V, 3, R, R] in -1 .. 1


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """All with as many pictures; each picture as large as the first row's."""
    if not rows or not all(len(row.images) for row in rows):
        raise ValueError(f"{len(rows)} rows of {[len(row.images) for row in rows]} pictures: give at least one of each")
    if len({len(row.images) for row in rows}) > 1:
        raise ValueError(f"rows of {[len(row.images) for row in rows]} pictures: a sheet has equally many in each row")
    size = rows[0].images.shape[-1]
    size *= -(-SMALLEST // size)
    margin = size // 16
    labels = 3 * size // 2 if any(row.text for row in rows) else 0  # width of their column
    sheet = Image.new("RGB", (labels + size * len(rows[0].images), size * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=size / 10)
    for i, row in enumerate(rows):
        text = wrapped(row.text, font, labels - 2 * margin, lines=7)
        draw.multiline_text((margin, i * size + size // 2), text, "black", font, anchor="lm")
        for j, pixels in enumerate(to_bytes(row.images)):
            picture = Image.fromarray(pixels)
            if picture.width != size:
                picture = picture.resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(picture, (labels + j * size, i * size))
    return sheet


def beside(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Sheets of equally many rows from left to right, a title over the pictures of each. Only the first has texts."""
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
    """Text in lines of at most `width` pixels; what is beyond so many lines is left out."""
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
    """A word, or parts of one that does not fit on a line: not all scripts put spaces between words."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


# Pictures.


def to_bytes(images: Tensor) -> Array:
    """[N, 3, R, R] in -1 .. 1 -> [N, R, R, 3] uint8."""
    return (images.detach() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def depth_to_images(depth: Tensor, near: float, far: float) -> Tensor:
    """[N, 1, R, R] -> grey [N, 3, R, R]; near is bright."""
    return (1 - 2 * ((depth - near) / (far - near)).clamp(0, 1)).expand(-1, 3, -1, -1)


def tiled(rows: Sequence[Tensor]) -> Image.Image:
    """Rows [N, 3, R, R] of one size, without text."""
    return Image.fromarray(np.concatenate([np.concatenate(list(to_bytes(row)), 1) for row in rows], 0))


# Files.


def check_target(path: str | Path, overwrite: bool = False) -> Path:
    """That a picture may be written there."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: its end must name a kind of picture, one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; name another file, or allow overwriting")
    return path


def save_picture(picture: Image.Image, path: str | Path, overwrite: bool = False) -> None:
    """Written beside its place and moved there when complete, so it is never half there."""
    path = check_target(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with unfinished.open("wb") as file:
            picture.save(file, Image.registered_extensions()[path.suffix.lower()], optimize=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)

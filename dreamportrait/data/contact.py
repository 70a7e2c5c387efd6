"""Draws a contact sheet: pictures with the box and axes of the head as the camera labels say, and the poses of all.

If labels are right, the box holds the face, the red axis goes to the left ear of the head, the green axis up along the
face and the blue one out of it along the nose.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy import ndarray as Array
from PIL import Image, ImageDraw

from dreamportrait.data.preparation.pictures import Unusable
from dreamportrait.data.preparation.pose import PIVOT, angles, project
from dreamportrait.data.validation import Row

CELL, COLUMNS, MOST = 192, 6, 24
_BOX = np.array([[x, y, z] for x in (-0.2, 0.2) for y in (-0.26, 0.24) for z in (0.0, 0.26)])  # around a face
_EDGES = [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]
_AXES = {(255, 60, 60): [0.25, 0, 0], (60, 220, 60): [0, 0.3, 0], (70, 130, 255): [0, 0, 0.3]}
_GRID, _INK, _BAR = (220, 220, 220), (40, 40, 40), (70, 130, 180)


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """Return the sheet of a data set: pictures spread evenly over it, and histograms of yaw and pitch of all."""
    shown = [rows[i] for i in np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int)]
    lines = math.ceil(len(shown) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, lines * CELL + CELL + 20), "white")
    for i, row in enumerate(shown):
        sheet.paste(_cell(row), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    turned = angles(np.array([row.label for row in rows], float))
    draw = ImageDraw.Draw(sheet)
    half = COLUMNS * CELL // 2
    _histogram(
        draw, (0, lines * CELL + 20), half, turned[:, 0], "yaw: negative = camera to the left of the face's front"
    )
    _histogram(draw, (half, lines * CELL + 20), half, turned[:, 1], "pitch: positive = camera above")
    return sheet


def _cell(row: Row) -> Image.Image:
    try:
        with Image.open(io.BytesIO(row.read())) as file:
            picture = file.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
    except (Unusable, OSError, ValueError):
        picture = Image.new("RGB", (CELL, CELL), (90, 90, 90))
    camera = np.array(row.label, float)
    draw_head(ImageDraw.Draw(picture), camera, CELL)
    yaw, pitch, _ = angles(camera[None])[0]
    ImageDraw.Draw(picture).text(
        (4, CELL - 14), f"{yaw:+.0f} {pitch:+.0f}", fill="white", stroke_width=1, stroke_fill="black"
    )
    return picture


def draw_head(draw: ImageDraw.ImageDraw, camera: Array, size: int) -> None:
    """Draw the box and axes of the head into a picture of `size` pixels."""
    corners = project(camera[None], _BOX)[0] * size
    width = max(1, size // 150)
    for i, j in _EDGES:
        draw.line([*corners[i], *corners[j]], fill=(255, 220, 60), width=width)
    ends = PIVOT + np.array([[0, 0, 0], *_AXES.values()])
    placed = project(camera[None], ends)[0] * size
    for colour, end in zip(_AXES, placed[1:], strict=True):
        draw.line([*placed[0], *end], fill=colour, width=2 * width)


def _histogram(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, values: Array, title: str) -> None:
    left, top = corner
    limit = max(30, 15 * math.ceil(float(np.abs(values).max()) / 15))
    counts, edges = np.histogram(values, 40, (-limit, limit))
    bottom, inside = top + CELL - 40, width - 40
    for angle in range(-limit, limit + 1, 15):
        x = left + 20 + inside * (angle + limit) / (2 * limit)
        draw.line([x, top, x, bottom], fill=_GRID)
        draw.text((x, bottom + 4), str(angle), fill=_INK, anchor="ma")
    for count, start in zip(counts, edges, strict=False):
        x = left + 20 + inside * (start + limit) / (2 * limit)
        draw.rectangle(
            [x, bottom - (bottom - top) * count / max(counts.max(), 1), x + inside / 40 - 1, bottom], fill=_BAR
        )
    draw.text((left + 20, top - 16), title, fill=_INK)

"""The sheet of all methods: a row for each prompt, a column for each method, two views of each head."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from dreamportrait.baselines.heads import FRONT, Seen
from dreamportrait.export.sheets import Row, beside, draw_sheet


def draw(prompts: Sequence[str], heads: Mapping[str, Sequence[Seen]]) -> Image.Image:  # by the title of the column
    """Draw the front and the last view of every head."""
    sheets = []
    for number, (title, column) in enumerate(heads.items()):
        rows = [
            Row(prompt if number == 0 else "", torch.stack([head.images[FRONT], head.images[-1]]))
            for prompt, head in zip(prompts, column, strict=True)
        ]
        sheets.append((title, draw_sheet(rows)))
    return beside(sheets)

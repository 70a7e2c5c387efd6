"""Draw the styles of the miniature world: a row for each style and hidden variant, two people from four sides each.

python tools/draw_styles.py docs/pictures/styles.jpg [--variants 1] [--white]
"""

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import one_message
from dreamportrait.export.sheets import Row, draw_sheet, save_picture
from dreamportrait.geometry.cameras import orbit
from dreamportrait.miniworld.attributes import TRAITS, Attributes, make_attributes
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.styles import STYLES, Look
from dreamportrait.miniworld.world import RADIUS

PEOPLE = (
    {"gender": "woman", "hair_style": "long", "hair_color": "brown", "clothes": "purple", "background": "blue"},
    {"gender": "man", "skin": "dark", "facial_hair": "beard", "eyewear": "glasses", "hat": "cap", "hat_color": "red"},
)
YAWS, PITCH = (0.0, 25.0, 90.0, 180.0), 0.0


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--variants", type=click.IntRange(1), default=3, show_default=True, help="At most so many of each style.")
@click.option("--white", is_flag=True, help="Draw everything before pure white.")
def main(out: Path, variants: int, white: bool) -> None:
    with one_message():
        people = [make_attributes(expression="smile", **chosen) for chosen in PEOPLE]
        rows = [Row("no style", _views(people, Look(None, white=white)))]
        for style in STYLES:
            for variant in range(min(variants, style.variants)):
                rows.append(Row(style.name, _views(people, Look(style, variant, white))))
        save_picture(draw_sheet(rows), out, overwrite=True)
        click.echo(out)


def _views(people: list[Attributes], look: Look) -> Tensor:  # [P V, 3, 64, 64] in -1 .. 1
    cameras, still = orbit(YAWS, PITCH, RADIUS, (0, 0, 0)).numpy(), np.zeros(len(TRAITS))
    pictures = [render(person, still, camera, look=look).image for person in people for camera in cameras]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


if __name__ == "__main__":
    main()

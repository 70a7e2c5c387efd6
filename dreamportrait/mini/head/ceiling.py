"""Measure the best that painting on the bald mesh of mini/head can show: the ceiling of every texture method.

    python -m dreamportrait.mini.head.ceiling --count 100

The exact texture of each face of a split is baked on the mesh of its shape and drawn from the front. Beside it: the
same faces drawn by the world's own renderer.
"""

from pathlib import Path

import click

from dreamportrait.core.errors import one_message
from dreamportrait.data.names import FACES
from dreamportrait.metrics.report import table


@click.command(help=__doc__)
@click.option("--count", type=click.IntRange(min=2), default=100, show_default=True, help="Number of captions.")
@click.option("--split", type=click.Choice(list(FACES)), default="validation", show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), help="Also draw the first 16 faces, painted and exact.")
def main(count: int, split: str, sheet: Path | None) -> None:
    with one_message():
        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.mini.head.painted_faces import measure

        found = measure(count, split)
        click.echo(table(["score", "painted", "exact"], found.rows()))
        if sheet is not None:
            save_sheet([found.painted[:16], found.exact[:16]], sheet, scale=2)


if __name__ == "__main__":
    main()

"""Measure rendered faces that show exactly what captions state, as a yardstick for text-to-3D generators.

    python -m dreamportrait.mini.ideal --count 500

For each caption of a split a random face is changed only where the caption states something, and drawn by the
world's own renderer. These are not the best possible scores. Retrieval captions name every hat, all glasses and every
beard, and never state that a face has none, so random faces changed only by what they state have too many. The further
columns show faces that lack a share of those that are not stated. They have another R-Precision and diversity, though
all of them show everything that is stated: where the scores of a generator can lie at best.

ceilings.py measures how much such faces differ within a prompt, beside samples of the teacher.
"""

import click

from dreamportrait.core.errors import one_message
from dreamportrait.data.names import FACES
from dreamportrait.metrics.report import table


@click.command(help=__doc__)
@click.option("--count", type=click.IntRange(min=2), default=500, show_default=True, help="Number of captions.")
@click.option("--split", type=click.Choice(list(FACES)), default="validation", show_default=True)
def main(count: int, split: str) -> None:
    with one_message():
        from dreamportrait.mini.stated_faces import SHARES, scores

        lacking = [f"{100 * share:.0f} % of what is worn unsaid is off" for share in SHARES[1:]]
        click.echo(table(["score", "rendered as stated", *lacking], scores(count, split)))


if __name__ == "__main__":
    main()

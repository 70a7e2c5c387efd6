"""Calibrate the sharpness scores on pictures that were made worse on purpose.

    python -m benchmarks.sharpness --out benchmarks/results/sharpness.json

Real pictures are the first faces of miniworld:validation. Other faces of it are blurred, made noisy, mixed in pairs
(ghosts), or encoded and decoded by the mini VAE, and compared with them, as are pictures of mini/eg3d and of `mini`.
Scores with other seeds of the patches say how far the choice of patches changes a score.
"""

import json
from pathlib import Path

import click

from dreamportrait import __version__
from dreamportrait.core.files import write_text
from dreamportrait.metrics.report import table


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
@click.option("--count", type=click.IntRange(min=2), default=500, show_default=True, help="Pictures of each set.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Seeds of the patches.")
@click.option("--model", default="mini", show_default=True, help="As --checkpoint of `dreamportrait evaluate`.")
def main(out: Path, count: int, seeds: int, model: str) -> None:
    # What takes seconds to load is imported here, so that --help appears at once.
    from benchmarks.altered import measured
    from dreamportrait.data.sources import open_pictures

    pictures = open_pictures("miniworld:validation", count=3 * count)
    rows, found = [], []
    for name, seed, scores in measured(pictures, count, seeds, model):
        found.append({"pictures": name, "seed": seed, "scores": scores})
        values = [f"{scores[place][key]:.1f}" for place in ("all", "face") for key in ("distance", "nearest")]
        rows.append([name, str(seed), *values])
    about = {"dataset": "miniworld:validation", "count": count, "model": model, "version": __version__}
    write_text(out, json.dumps(about | {"sets": found}, indent=2) + "\n")
    click.echo(table(["pictures", "seed", "distance", "nearest", "face: distance", "face: nearest"], rows))


if __name__ == "__main__":
    main()

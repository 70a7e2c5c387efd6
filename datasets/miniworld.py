"""Write faces of the miniature world as a data set of images, cameras, captions and attributes.

python datasets/miniworld.py OUT --split train --count 20000
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait import __version__
from dreamportrait.core.errors import DataError, one_message

if TYPE_CHECKING:
    from dreamportrait.data.writing import Sample

# The functions import what takes seconds to load, so that --help appears at once.
SPLITS = ("train", "validation", "test", "combinations")  # those of dreamportrait.miniworld.world


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(SPLITS), required=True, help="Set of identities.")
@click.option("--count", type=click.IntRange(min=1), required=True, help="Faces, each with one view and ten captions.")
@click.option(
    "--resolution",
    type=click.IntRange(16, 1024),
    default=64,
    show_default=True,
    help="Width and height of the images in pixels.",
)
@click.option("--zip", "zipped", is_flag=True, help="Write one zip file, OUT, whose name must end in .zip.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is a data set.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=os.cpu_count(),
    help="Processes that render; default: one per core.",
)
def main(out: Path, split: str, count: int, resolution: int, zipped: bool, overwrite: bool, workers: int) -> None:
    with one_message():
        if zipped != (out.suffix == ".zip"):
            raise DataError(f"OUT is {out}: a zip file ends in .zip and needs --zip, a folder has neither")
        from dreamportrait.data.writing import check_free, write_dataset

        check_free(out, overwrite)
        write_dataset(out, samples(split, count, resolution, workers), about(split, count, resolution), overwrite)
    click.echo(f"wrote {out}: {count} faces of the split {split}, {resolution} x {resolution}")


def about(split: str, count: int, resolution: int) -> dict[str, Any]:
    """Return everything that determines the content of the data set."""
    from dreamportrait.miniworld import world

    return {
        "world": "miniworld",
        "split": split,
        "seed": world.SEEDS[split],
        "count": count,
        "resolution": resolution,
        "code_version": __version__,
        "fingerprint": world.fingerprint(),  # changes with the code that draws the faces
        "captions_fingerprint": captions_fingerprint(),
    }


def captions_fingerprint() -> str:
    """Return a hash of the code that writes the captions."""
    from dreamportrait.miniworld import captions as grammar

    here = Path(grammar.__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in ("captions", "grammar")]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def samples(split: str, count: int, resolution: int, workers: int) -> Iterator["Sample"]:
    """Yield the same faces, views and captions as world.load."""
    from dreamportrait.data.writing import Sample
    from dreamportrait.miniworld import captions as grammar
    from dreamportrait.miniworld import world
    from dreamportrait.miniworld.attributes import read_code
    from dreamportrait.miniworld.rendering import rendered

    codes, cameras = world.identities(split, count), world.random_cameras(count, world.SEEDS[split])
    chunks = rendered(codes, cameras, resolution, workers)
    for index, image in enumerate(image for images, _ in chunks for image in images):
        attributes, seed = read_code(codes[index])[0], world.caption_seed(split, index)
        texts = grammar.captions(attributes, seed), grammar.evaluation_caption(attributes, seed)
        yield Sample(image, cameras[index], *texts, attributes)


if __name__ == "__main__":
    main()

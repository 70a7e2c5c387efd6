"""Writes a split of a prepared data set in EG3D's format, as data/folder.py describes it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from dreamportrait.data.shards import ShardPictures
from dreamportrait.data.writing import Sample, write_dataset


def export(
    prepared: Path,
    out: Path,
    split: str,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> int:
    """Write a folder, or a zip file if `out` ends in .zip, and return the number of pictures. They become PNGs."""
    pictures = ShardPictures(prepared, split)

    def samples() -> Iterator[Sample]:
        for i in range(len(pictures)):
            camera = pictures.cameras[i].numpy()
            yield Sample(pictures.image(i).numpy(), camera, pictures.captions(i), pictures.evaluation_caption(i))
            progress(1)

    return write_dataset(out, samples(), overwrite=overwrite)

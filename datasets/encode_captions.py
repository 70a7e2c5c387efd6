"""Write the text features of a data set's captions to a folder, so that training needs no text encoder.

CAPTIONS is a data set (a prepared one, a folder or a zip file) or its captions.jsonl.

python datasets/encode_captions.py CAPTIONS OUT --clip mini/clip-a
"""

import json
from pathlib import Path

import click

from dreamportrait.core.errors import DataError, one_message

# The functions import what takes seconds to load, so that --help appears at once.


@click.command(help=__doc__)
@click.argument("captions", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--clip", default="mini/clip-a", show_default=True, help="Name, MODEL:PRETRAINED, MODEL:FILE or folder.")
@click.option(
    "--config",
    "training",
    type=click.Path(path_type=Path),
    help="The configuration of a training, whose samples.prompts are encoded as well.",
)
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, help="Captions encoded at a time.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Download nothing.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds text features.")
def main(
    captions: Path,
    out: Path,
    clip: str,
    training: Path | None,
    batch: int,
    device: str | None,
    offline: bool,
    overwrite: bool,
) -> None:
    with one_message():
        if not captions.exists():
            raise DataError(f"{captions} is not there; name a data set or its captions.jsonl")
        from dreamportrait.core.files import check_free
        from dreamportrait.core.machine import find_device
        from dreamportrait.text.loading import load_text_encoder
        from dreamportrait.text.store import FILES, is_store_of, write_store

        prompts = [] if training is None else sample_prompts(training)  # before the captions, which may take a while
        texts = list(dict.fromkeys([*read_captions(captions), *prompts]))
        encoder = load_text_encoder(clip, offline, find_device(device))
        if is_store_of(out, encoder, clip, texts):
            click.echo(f"{out} holds these features already")
            return
        check_free(out, overwrite, FILES)
        with click.progressbar(length=len(texts), label=f"encoding {len(texts)} captions") as bar:
            write_store(out, encoder, clip, texts, batch, overwrite, bar.update)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"wrote {out}: {len(texts)} different captions, {size / 1e6:.1f} MB")


def sample_prompts(path: Path) -> list[str]:
    """Return the prompts of the sample sheets of a training's configuration."""
    from dreamportrait.systems.dreamportrait.config import load_config

    return list(load_config(path).samples.prompts)


def read_captions(path: Path) -> list[str]:
    """Return all captions of the data set, for training and for evaluation."""
    if path.suffix != ".jsonl":
        from dreamportrait.data.folder import ImageFolder
        from dreamportrait.data.index import Entry, is_prepared, read_index

        if is_prepared(path):
            entries = [row for row in read_index(path) if isinstance(row, Entry)]
            return [text for entry in entries for text in (*entry.captions, entry.evaluation)]
        data = ImageFolder(path)
        return [text for texts in data.captions for text in texts] + data.evaluation
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [text for number, line in enumerate(lines, 1) for text in _texts(line, f"{path}, line {number}")]


def _texts(line: str, where: str) -> list[str]:
    try:
        values = json.loads(line)
        captions, evaluation = values["captions"], values["evaluation"]
    except (ValueError, TypeError, KeyError):
        captions = evaluation = None
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in [*captions, evaluation]):
        raise DataError(f'{where}: must be {{"file": name, "captions": [texts], "evaluation": text}}')
    return [*captions, evaluation]


if __name__ == "__main__":
    main()

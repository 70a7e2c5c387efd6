"""The command `sample`, which makes portraits."""

from pathlib import Path

import click

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_target
from dreamportrait.systems.dreamportrait.names import locate_portrait


@click.command()
@click.argument("prompts", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The sheet to write: .png, .jpg or .webp.")
@click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the identity, for all PROMPTS."
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Views of each portrait, from left to right.",
)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Smaller values are closer to the average face, before the text acts.",
)
@click.option("--depth", is_flag=True, help="Add depth maps below the views.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--overwrite", is_flag=True, help="Replace the sheet if it exists.")
def sample(
    prompts: tuple[str, ...],
    out: Path,
    model: str,
    seed: int,
    views: int,
    truncation: float,
    depth: bool,
    device: str | None,
    offline: bool,
    overwrite: bool,
) -> None:
    """Make a portrait for each of PROMPTS and draw all portraits on a sheet, each in several views.

    Put each prompt in quotes.
    """
    with one_message():
        check_target(out, overwrite)  # before anything heavy is imported
        locate_portrait(model)
        from dreamportrait.core.machine import find_device
        from dreamportrait.pipeline import DreamPortraitPipeline

        pipe = DreamPortraitPipeline.from_pretrained(model, device=find_device(device), offline=offline)
        portraits = pipe(prompts, seed, views, truncation=truncation)
        portraits.save_sheet(out, depth, overwrite)
    click.echo(f"wrote {out}: {len(prompts)} x {views} views, seed {seed}")

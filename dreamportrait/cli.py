"""The command line. PyTorch is imported by the verbs that need it, so that help is there at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait import __version__

if TYPE_CHECKING:
    from dreamportrait.weights.store import FolderConfig


@contextmanager
def one_message() -> Iterator[None]:
    """What is wrong with the input becomes one message and exit code 1, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@click.group()
@click.version_option(__version__, prog_name="dreamportrait")
def main() -> None:
    """Text-to-3D portraits from a tri-plane GAN."""


@main.command()
@click.argument("prompts", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The sheet: .png, .jpg or .webp.")
@click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The identity, for all PROMPTS.")
@click.option("--views", type=click.IntRange(min=1), default=5, show_default=True, help="From left to right.")
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Less is closer to the average face, before the text acts.",
)
@click.option("--depth", is_flag=True, help="Depths below the views.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="The GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Fetch nothing.")
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
    """Make portraits of PROMPTS, one or several, and draw them on a sheet, each in several views."""
    with one_message():
        from dreamportrait.export.sheets import check_target

        check_target(out, overwrite)  # before the model is loaded

        device = _found(device)
        from dreamportrait.pipeline import DreamPortraitPipeline

        pipe = DreamPortraitPipeline.from_pretrained(model, device=device, offline=offline)
        portraits = pipe(prompts, seed, views, truncation=truncation)
        portraits.save_sheet(out, depth, overwrite)
    click.echo(f"wrote {out}: {len(prompts)} x {views} views, seed {seed}")


@main.command()
@click.option("--checkpoint", required=True, help="mini, a portrait's folder, a run's folder or a checkpoint in it.")
@click.option("--dataset", required=True, help="A folder, a zip file, miniworld:test or miniworld:combinations.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of scores.json and scores.md.")
@click.option("--captions", type=click.Path(path_type=Path), help="A JSON list of texts for the first pictures.")
@click.option("--num-images", "count", type=click.IntRange(min=2), help="Samples; all the data set has, at most 2000.")
@click.option("--num-candidates", type=click.IntRange(min=2), help="R-Precision chooses 1 of these; 100.")
@click.option("--region", type=click.Choice(["all", "face"]), help="What is judged: all of a picture, or its middle.")
@click.option("--extractor", help="inception[:FILE], mini-clip or clip:SOURCE; only with the first it is a FID.")
@click.option("--clip", help="The judge: mini/clip-b, MODEL:PRETRAINED of open_clip, or a folder.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32")
@click.option("--truncation", type=click.FloatRange(0, 1), help="Less is closer to the average face; 1.")
@click.option("--seed", type=click.IntRange(min=0), help="Of identities and candidates; 0.")
@click.option("--batch", type=click.IntRange(min=1), help="Of each process; 16.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="The GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Fetch nothing.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds a report.")
def evaluate(
    checkpoint: str,
    dataset: str,
    out: Path,
    count: int | None,
    captions: Path | None,
    extractor: str | None,
    clip: str | None,
    precision: str,
    device: str | None,
    offline: bool,
    overwrite: bool,
    **protocol: Any,
) -> None:
    """Measure a generator: FID, MSC, R-Precision, diversity, agreement of views.

    Also under torchrun, which changes no score.
    """
    with one_message():
        gpu = _found(device) == "cuda"
        from dreamportrait import evaluation
        from dreamportrait.training.run_folder import is_first_process

        chosen = {name: value for name, value in protocol.items() if value is not None}
        sources = checkpoint, dataset, out, count, captions, extractor, clip, precision
        text = evaluation.run(evaluation.Request(*sources, chosen, gpu, offline, overwrite))
        if is_first_process():
            click.echo(f"{text}\nwrote {out}")


def _found(device: str | None) -> str:
    import torch

    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ValueError("--device cuda: PyTorch sees no GPU here; choose cpu")
    return device or ("cuda" if gpu else "cpu")


@main.group()
def convert() -> None:
    """Convert weights of others to safetensors and JSON."""


@convert.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--use",
    type=click.Choice(["G_ema", "G"]),
    default="G_ema",
    show_default=True,
    help="Which generator: the running average that EG3D renders with, or the one that was being trained.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds weights written by this command.")
def eg3d(snapshot: Path, out: Path, use: str, overwrite: bool) -> None:
    """Convert an official EG3D SNAPSHOT (a .pkl file) to the folder OUT.

    Writes OUT/config.json, OUT/generator.safetensors and, where the snapshot has a discriminator,
    OUT/discriminator.safetensors.

    Nothing in the snapshot is executed: it is read by a program that knows only what official snapshots contain,
    and refuses everything else.
    """
    with one_message():
        from dreamportrait.weights import convert_eg3d

        config = convert_eg3d(snapshot, out, use=use, overwrite=overwrite)  # type: ignore[arg-type]
    _report(out, config)


def _report(out: Path, config: "FolderConfig") -> None:
    g, source = config.generator, config.source
    assert source is not None
    click.echo(f"{source.name}, SHA-256 {source.sha256}")
    click.echo(f"{source.network}: {g.image_resolution} x {g.image_resolution}, rendered at {g.render_resolution}")
    for path in sorted(out.iterdir()):
        click.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if config.discriminator is None:
        click.echo("The snapshot has no discriminator.")
    click.echo(f"Licence: {config.licence}")

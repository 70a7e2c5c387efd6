"""The command group `convert`, which converts weights of other projects."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.core.errors import one_message

if TYPE_CHECKING:
    from dreamportrait.eg3d.folder import FolderConfig


@click.group()
def convert() -> None:
    """Convert weights of other projects to safetensors and JSON."""


@convert.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option(
    "--use",
    type=click.Choice(["G_ema", "G"]),
    default="G_ema",
    show_default=True,
    help="The generator to convert: the running average, with which EG3D renders, or the trained weights.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds weights written by this command.")
@options.as_json
def eg3d(snapshot: Path, out: Path | None, use: str, overwrite: bool, as_json: bool) -> None:
    """Convert an official EG3D SNAPSHOT (a .pkl file) to the folder OUT.

    OUT may be left out: then it is a folder here, named after the snapshot. Writes OUT/config.json,
    OUT/generator.safetensors and, if the snapshot has a discriminator, OUT/discriminator.safetensors.

    Nothing in the snapshot is executed: the reader knows only what official snapshots contain and refuses
    everything else.

    \b
    Examples:
        dreamportrait convert eg3d ffhq512-128.pkl
        dreamportrait convert eg3d ffhq512-128.pkl weights/ffhq512 --use G
    """
    with one_message():
        from dreamportrait.eg3d.convert import convert_eg3d

        out = out or Path(snapshot.stem)
        config = convert_eg3d(snapshot, out, use=use, overwrite=overwrite)  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps(_facts(out, config)))
    else:
        _report(out, config)


def _facts(out: Path, config: "FolderConfig") -> dict[str, object]:
    assert config.source is not None
    written = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return {
        "out": str(out),
        "files": written,
        "source": asdict(config.source),
        "licence": config.licence,
        "image_resolution": config.generator.image_resolution,
        "render_resolution": config.generator.render_resolution,
    }


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

"""The command `splats`, which exports a portrait as Gaussian splats."""

import json
from pathlib import Path

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.errors import one_message


@click.command()
@options.prompt
@options.out("The file to write: .ply or .spz.", "a .ply here, named after prompt and seed")
@click.option(
    "--count",
    type=click.IntRange(1_000, 2_000_000),
    default=65_536,
    show_default=True,
    help="Splats; more show finer detail and make larger files.",
)
@click.option(
    "--background/--no-background",
    default=True,
    show_default=True,
    help="Keep the wall that the generator draws behind the head, or leave it out.",
)
@click.option(
    "--corrections",
    type=click.Path(path_type=Path),
    help="A folder with a network that corrects splats of this model. Default: that of mini, where it fits.",
)
@options.seed
@options.makes_heads
def splats(
    prompt: str,
    out: Path | None,
    count: int,
    background: bool,
    corrections: Path | None,
    seed: int,
    making: options.Making,
) -> None:
    """Export a portrait of PROMPT as Gaussian splats, which browsers draw in real time.

    Put the prompt in quotes. A .ply is read by all programs for splats, a .spz has a quarter of its size. Splats show
    what the model's training cameras could see: there is no back of the head.

    \b
    Examples:
        dreamportrait splats "a woman with red hair"
        dreamportrait splats "an old man" --seed 3 --out man.spz
        dreamportrait splats "a man" --no-background --count 30000 --json
    """
    with one_message():
        from dreamportrait.export.splat_files import check_splats_target

        out = out or default_name(prompt, seed, ".ply")
        check_splats_target(out, making.overwrite)  # before anything heavy is imported
        options.check_place(out, making.model)
        from dreamportrait.export.splat_head import load_splat_head

        network = True if corrections is None else load_splat_head(corrections)
        portrait = making.portrait(prompt, seed)
        made = portrait.save_splats(
            out, count, background, network, overwrite=making.overwrite, provenance=making.provenance
        )
    facts = {"splats": len(made), "bytes": out.stat().st_size, "background": background}
    if making.as_json:
        known = {"out": str(out), "prompt": prompt, "seed": seed, "model": making.model}
        click.echo(json.dumps(known | facts | {"provenance": making.origin(portrait)}))
    else:
        click.echo(f"wrote {out}: {len(made)} splats, {facts['bytes'] / 1e6:.1f} MB, seed {seed}")

"""The command `mesh`, which exports a portrait as a triangle mesh."""

import json
from pathlib import Path

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.errors import one_message


@click.command()
@options.prompt
@options.out("The mesh to write: .glb, .ply or .obj.", "a .glb here, named after prompt and seed")
@click.option(
    "--resolution",
    type=click.IntRange(16, 512),
    help="Samples along an edge of the box. Default: twice as many as the model's planes have, at most 256.",
)
@click.option(
    "--colors",
    type=click.Choice(["texture", "vertices"]),
    default="texture",
    show_default=True,
    help="Where colours are stored. A .ply always has them in its vertices.",
)
@options.seed
@options.makes_heads
def mesh(
    prompt: str,
    out: Path | None,
    resolution: int | None,
    colors: str,
    seed: int,
    making: options.Making,
) -> None:
    """Export a portrait of PROMPT as a mesh for Blender, game engines and web pages.

    Put the prompt in quotes. The mesh is closed and without background, y is up, lengths are metres.

    \b
    Examples:
        dreamportrait mesh "a woman with red hair"
        dreamportrait mesh "an old man" --seed 3 --out man.obj
        dreamportrait mesh "a man" --out man.ply --resolution 192
        dreamportrait mesh "a man" --colors vertices --json
    """
    with one_message():
        from dreamportrait.export.mesh_files import check_mesh_target

        out = out or default_name(prompt, seed, ".glb")
        check_mesh_target(out, making.overwrite)  # before anything heavy is imported
        options.check_place(out, making.model)
        portrait = making.portrait(prompt, seed)
        texture = colors == "texture"
        made = portrait.save_mesh(out, resolution, texture, overwrite=making.overwrite, provenance=making.provenance)
    facts = {"vertices": len(made.positions), "faces": len(made.faces), "level": round(made.level, 3)}
    if making.as_json:
        known = {
            "out": str(out),
            "prompt": prompt,
            "seed": seed,
            "model": making.model,
            "colors": "vertices" if made.texture is None else "texture",
        }
        click.echo(json.dumps(known | facts | {"provenance": making.origin(portrait)}))
    else:
        click.echo(f"wrote {out}: {facts['vertices']} vertices, {facts['faces']} faces, seed {seed}")

"""The group `head`: morphable heads, tuned to a prompt and written as rigged GLBs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_free_file, check_target, check_writable

if TYPE_CHECKING:
    from dreamportrait.guidance.stable_diffusion import StableDiffusion
    from dreamportrait.systems.heads.model import HeadModel

SIDES = [-25.0, 0.0, 25.0]  # degrees; the views on a sheet
DEVIATION = 2.0  # of the components that are shown
SHOWN = 8  # components

model = click.option(
    "--head", "source", default="mini/head", show_default=True, help="mini/head, gnm (fetched once), or a folder."
)


@click.group()
def head() -> None:
    """Morphable heads: meshes with expressions and joints."""


@head.command()
@options.prompt
@model
@click.option("--prior", default="mini/diffusion", show_default=True, help="The diffusion model, a name or a folder.")
@click.option("--shape/--no-shape", default=True, show_default=True, help="Tune the shape.")
@click.option("--texture/--no-texture", default=True, show_default=True, help="Tune the texture.")
@options.out("The .glb to write.", "a .glb here, named after prompt and seed")
@click.option("--evolution", type=click.Path(path_type=Path), help="Also draw the head while it is tuned, on a sheet.")
@click.option("--views", type=click.Path(path_type=Path), help="Also draw the finished head from three sides.")
@options.seed
@options.offline
@options.overwrite
@options.provenance
@options.as_json
def optimise(
    prompt: str,
    source: str,
    prior: str,
    shape: bool,
    texture: bool,
    out: Path | None,
    evolution: Path | None,
    views: Path | None,
    seed: int,
    offline: bool,
    overwrite: bool,
    provenance: bool,
    as_json: bool,
) -> None:
    """Tune a head to PROMPT by score distillation and write it as a GLB with blend shapes and joints.

    The prompt is read by the diffusion model that guides the head; put it in quotes.

    \b
    Examples:
        dreamportrait head optimise "a man with short red hair"
        dreamportrait head optimise "an old woman" --out woman.glb --evolution woman.png
    """
    with one_message():
        if not prompt.strip():
            raise ValueError("the prompt is empty; say how the head looks")
        out = out or default_name(prompt, seed, ".glb")
        if out.suffix.lower() != ".glb":
            raise ValueError(f"{out}: must end in .glb")
        check_writable(check_free_file(out, overwrite))
        for sheet in (evolution, views):
            if sheet is not None:
                check_writable(check_target(sheet, overwrite))
        loaded, diffusion = _load(source, prior, offline)
        import torch

        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.systems.heads.glb import save_glb
        from dreamportrait.systems.heads.optimise import SHAPE, TEXTURE
        from dreamportrait.systems.heads.optimise import optimise as tune

        made = tune(
            loaded, prompt, diffusion, seed=seed, shape=SHAPE if shape else None, texture=TEXTURE if texture else None
        )
        save_glb(made, out, overwrite=overwrite, provenance=provenance)
        if evolution is not None and made.evolution:
            save_sheet([torch.stack(made.evolution)], evolution)
        if views is not None:
            save_sheet([made.view(SIDES).colors], views)
    size = out.stat().st_size
    facts = {
        "out": str(out),
        "bytes": size,
        "prompt": prompt,
        "seed": seed,
        "head": source,
        "prior": prior,
    }
    if as_json:
        click.echo(json.dumps(facts | {"weights": [round(value, 4) for value in made.beta.tolist()]}))
    else:
        click.echo(f"wrote {out}: {loaded.num_expressions} blend shapes, {size / 1e6:.1f} MB, seed {seed}")


def _load(source: str, prior: str, offline: bool) -> "tuple[HeadModel, StableDiffusion]":
    """Load the head first, because its errors come sooner."""
    from dreamportrait.systems.heads.folder import load_head_model

    loaded = load_head_model(source, offline)
    from dreamportrait.guidance.stable_diffusion import load_stable_diffusion

    return loaded, load_stable_diffusion(prior, offline=offline)


@head.command()
@model
@options.out("The picture to write.", "components.png here")
@options.overwrite
def components(source: str, out: Path | None, overwrite: bool) -> None:
    """Draw the first components of a head model, each 2 deviations to both sides of the mean."""
    with one_message():
        out = out or Path("components.png")
        check_writable(check_target(out, overwrite))
        import torch

        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.systems.heads.folder import load_head_model
        from dreamportrait.systems.heads.head import Head

        loaded = load_head_model(source)
        if loaded.mean_texture is None:
            raise ValueError(f"head model {loaded.name!r} has no mean texture, so that it cannot be drawn")
        texture, rows = loaded.mean_texture, []
        for sign in (-1, 0, 1):
            betas = torch.eye(loaded.num_shapes)[:SHOWN] * DEVIATION * sign
            rows.append(torch.cat([Head(loaded, beta, texture).view(size=128).colors for beta in betas]))
        save_sheet(rows, out)
    click.echo(f"wrote {out}: {min(SHOWN, loaded.num_shapes)} components of {source}")

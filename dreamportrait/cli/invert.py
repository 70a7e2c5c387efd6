"""The command `invert`, which makes a portrait from a photo."""

import json
from pathlib import Path

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.cli.saving import check_saved, save_as
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_target


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@options.out("The sheet to write: .png, .jpg or .webp.", "a .png here, named after the photo")
@click.option("--save", type=click.Path(path_type=Path), help="Also save the portrait: .safetensors, .glb, .mp4, ...")
@click.option("--edit", multiple=True, help="A text that changes the portrait. May be given several times.")
@click.option("--steps", type=click.IntRange(min=0), default=100, show_default=True, help="Steps of the search for w.")
@click.option(
    "--tuning-steps", type=click.IntRange(min=0), default=60, show_default=True, help="Steps of tuning the backbone."
)
@options.model
@options.strength
@options.device
@options.offline
@options.overwrite
@options.provenance
@options.as_json
def invert(
    photo: Path,
    out: Path | None,
    save: Path | None,
    edit: tuple[str, ...],
    steps: int,
    tuning_steps: int,
    model: str,
    strength: float,
    device: str | None,
    offline: bool,
    overwrite: bool,
    provenance: bool,
    as_json: bool,
) -> None:
    """Make a portrait that looks like PHOTO, and draw it in several views.

    The photo must be square and cropped as the training pictures are. Texts of --edit change the portrait.

    \b
    Examples:
        dreamportrait invert photo.png
        dreamportrait invert photo.png --edit "a man with a beard" --edit "an old man"
        dreamportrait invert photo.png --save head.glb
    """
    with one_message():
        out = out or default_name(photo.stem, 0, ".png")
        check_target(out, overwrite)
        options.check_place(out, model)
        if not photo.is_file():
            raise FileNotFoundError(f"{photo} is not there; name a picture")
        if save is not None:
            check_saved(save, overwrite)
        from dreamportrait.export.portraits import Portraits

        pipe = options.load(model, device, offline)
        found = pipe.invert(photo, steps=steps, tuning_steps=tuning_steps, offline=offline)
        edits = [found.edit(text, strength) for text in edit]
        Portraits([found.portrait, *edits]).save_sheet(out, overwrite=overwrite, provenance=provenance)
        if save is not None:
            save_as(found.portrait, save, overwrite, provenance)
    about = {"strangeness": found.strangeness, "notes": found.notes}
    facts = {"out": str(out), "photo": str(photo), "model": model, "psnr": found.errors, **about}
    if as_json:
        click.echo(json.dumps(facts | {"edits": edit, "save": save and str(save)}))
    else:
        steps_found = ", ".join(f"{name} {value} dB" for name, value in found.errors.items())
        click.echo(f"wrote {out}: {1 + len(edits)} portraits; likeness after {steps_found}")

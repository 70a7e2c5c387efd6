"""The commands of `convert` that read head models of other projects."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dreamportrait.cli import options
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_free

if TYPE_CHECKING:
    from dreamportrait.systems.heads.readers.flame import Converted

MOST_PITCH = 45  # degrees
_FILES = ("config.json", "head.safetensors")
source = click.argument("source", type=click.Path(path_type=Path))
target = click.argument("out", type=click.Path(path_type=Path), required=False)
overwrite = click.option("--overwrite", is_flag=True, help="Replace OUT if it holds a head model.")


@click.command()
@source
@target
@click.option(
    "--uv", type=click.Path(path_type=Path), help="Places in a texture: a template .obj, or FLAME_texture.npz."
)
@click.option("--landmarks", type=click.Path(path_type=Path), help="landmark_embedding.npy, or a .pkl of landmarks.")
@click.option("--shapes", type=click.IntRange(min=1), default=300, show_default=True, help="Directions of identity.")
@click.option(
    "--rest-pitch",
    default="0",
    show_default=True,
    help="Nod of the rest pose in degrees, forwards; auto: the line from chin to brows becomes upright.",
)
@overwrite
@options.as_json
def flame(
    source: Path,
    out: Path | None,
    uv: Path | None,
    landmarks: Path | None,
    shapes: int,
    rest_pitch: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert FLAME's SOURCE (generic_model.pkl, flame2023.pkl, flame2023_Open.pkl) to the folder OUT.

    Nothing in the pickle is executed. FLAME's licence forbids to pass the result on; this command only reads your file.
    Without --uv the head has no texture, so that it cannot be drawn. With --landmarks it is placed by chin and nose.

    \b
    Example:
        dreamportrait convert flame generic_model.pkl flame --uv head_template.obj --landmarks landmark_embedding.npy
    """

    def read() -> "Converted":
        from dreamportrait.systems.heads.readers.flame import read_flame

        return read_flame(source, uv, landmarks, shapes, _degrees(rest_pitch))

    _convert(read, out or Path(source.stem), overwrite, as_json)


def _degrees(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= MOST_PITCH:
        raise ValueError(f"--rest-pitch {text!r}: must be auto, or degrees from -{MOST_PITCH} to {MOST_PITCH}")
    return found


@click.command()
@source
@target
@overwrite
@options.as_json
def gnm(source: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Convert GNM Head's SOURCE (gnm_head.npz, Apache-2.0) to the folder OUT.

    `--head gnm` fetches and converts it by itself; this command is for a file that is already here.

    \b
    Example:
        dreamportrait convert gnm gnm_head.npz gnm
        dreamportrait head optimise "an old man" --head gnm --out old.glb
    """

    def read() -> "Converted":
        from dreamportrait.systems.heads.readers.gnm import read_gnm

        return read_gnm(source)

    _convert(read, out or Path(source.stem), overwrite, as_json)


@click.command("ict-facekit")
@source
@target
@overwrite
@options.as_json
def ict_facekit(source: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Convert ICT-FaceKit Light (MIT) from SOURCE, a checkout of its repository, to the folder OUT.

    It gets ARKit's names, and a rig that is derived from its expressions.

    \b
    Example:
        git clone https://github.com/ICT-VGL/ICT-FaceKit
        dreamportrait convert ict-facekit ICT-FaceKit ict
        dreamportrait head optimise "an old man" --head ict --out old.glb
    """

    def read() -> "Converted":
        from dreamportrait.systems.heads.readers.ict import read_ict

        return read_ict(source)

    _convert(read, out or Path("ict-facekit"), overwrite, as_json)


def _convert(read: "Callable[[], Converted]", out: Path, overwrite: bool, as_json: bool) -> None:
    with one_message():
        check_free(out, overwrite, _FILES)
        from dreamportrait.systems.heads.folder import describe, save_head_model

        found = read()
        save_head_model(found.model, out, notes=found.notes, overwrite=overwrite)
        size = sum(path.stat().st_size for path in out.iterdir())
        said = describe(found.model)
    if as_json:
        facts = {"out": str(out), "bytes": size, "licence": found.model.licence, "notes": found.notes}
        click.echo(json.dumps(facts))
        return
    click.echo(said)
    for name, value in found.notes.items():
        click.echo(f"{name.replace('_', ' ')}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    click.echo(f"wrote {out} ({size / 1e6:.1f} MB)")

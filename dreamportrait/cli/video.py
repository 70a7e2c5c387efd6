"""The command `video`, which films a portrait."""

import json
from pathlib import Path

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.errors import one_message
from dreamportrait.export.encoding import check_video_target

MOTIONS = ("orbit", "ellipse")


@click.command()
@options.prompt
@options.out("The video to write: .mp4, .webm or .gif.", "an .mp4 here, named after prompt and seed")
@click.option(
    "--path",
    "motion",
    default="orbit",
    show_default=True,
    metavar="orbit|ellipse|FILE",
    help="The camera's path: from side to side, yaw and pitch on an ellipse, or through the keys of a file.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=4.0, show_default=True, help="Length of the video.")
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True, help="Frames a second; .gif: <= 50.")
@options.seed
@options.makes_heads
def video(
    prompt: str,
    out: Path | None,
    motion: str,
    seconds: float,
    fps: int,
    seed: int,
    making: options.Making,
) -> None:
    """Film a portrait of PROMPT while the camera moves around it.

    Put the prompt in quotes. Orbit and ellipse repeat without a jump. Frames of less than 256 pixels are enlarged.

    \b
    Examples:
        dreamportrait video "a woman with red hair"
        dreamportrait video "an old man" --seed 3 --path ellipse --out man.webm
        dreamportrait video "a bald man" --seconds 2 --fps 25 --out man.gif
        dreamportrait video "a man" --path keys.csv

    \b
    A FILE is CSV with a header, or JSON with a list of objects. Its keys are evenly spaced in time.
        yaw,pitch,fov        degrees to the right of the front, degrees above it,
        -20,0,18.8           diagonal field of view in degrees (may be left out)
        20,10,14
    """
    with one_message():
        out = out or default_name(prompt, seed, ".mp4")
        check_video_target(out, fps, making.overwrite)  # before anything heavy is imported
        options.check_place(out, making.model)
        if motion not in MOTIONS:
            check_motion(motion)  # before the model is loaded
        portrait = making.portrait(prompt, seed)
        made = portrait.save_video(
            out, motion, seconds, fps=fps, overwrite=making.overwrite, provenance=making.provenance
        )
    if making.as_json:
        facts = {"out": str(out), "prompt": prompt, "seed": seed, "model": making.model, **made._asdict()}
        click.echo(json.dumps(facts | {"provenance": making.origin(portrait)}))
        return
    click.echo(f"wrote {out}: {made.frames} frames of {made.size} x {made.size}, {fps} a second, seed {seed}")
    if made.enlarged > 1:
        rendered = made.size // made.enlarged
        click.echo(f"frames are {made.enlarged} times as large as rendered: this model draws {rendered} x {rendered}")


def check_motion(path: str) -> None:
    """Raise ValueError unless this is a file of camera keys."""
    if not Path(path).is_file():
        raise ValueError(f"--path {path}: must be orbit, ellipse or a file of camera keys, and no such file is there")
    from dreamportrait.geometry.paths import read_keys

    read_keys(path)

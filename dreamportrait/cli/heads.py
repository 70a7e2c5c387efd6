"""The group `head`: morphable heads, tuned to a prompt and written as rigged GLBs."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.cli.portraits import check_quotes
from dreamportrait.core.errors import listed, one_message
from dreamportrait.core.files import check_free_file, check_target, check_writable
from dreamportrait.export.encoding import VIDEO_SUFFIXES, check_video_target

if TYPE_CHECKING:
    from dreamportrait.guidance.stable_diffusion import StableDiffusion
    from dreamportrait.systems.heads.model import HeadModel

MINIATURE = "mini/diffusion"
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
@click.argument("prompts", nargs=-1, required=True)
@model
@click.option("--prior", default=MINIATURE, show_default=True, help="The diffusion model, a name or a folder.")
@click.option("--shape/--no-shape", default=True, show_default=True, help="Tune the shape.")
@click.option("--texture/--no-texture", default=True, show_default=True, help="Tune the texture.")
@options.out("The .glb to write, or a folder for several prompts.", "a .glb here, named after prompt and seed")
@click.option("--evolution", type=click.Path(path_type=Path), help="Also draw the head while it is tuned, on a sheet.")
@click.option("--views", type=click.Path(path_type=Path), help="Also draw the finished head from three sides.")
@options.seed
@options.offline
@options.overwrite
@options.provenance
@options.as_json
def optimise(
    prompts: tuple[str, ...],
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
    """Tune a head to each of PROMPTS by score distillation and write it as a GLB with blend shapes and joints.

    Prompts are read by the diffusion model that guides the heads; put each in quotes. All heads have the same seed.

    \b
    Examples:
        dreamportrait head optimise "a man with short red hair"
        dreamportrait head optimise "an old woman" --out woman.glb --evolution woman.png
        dreamportrait head optimise "a man" "an old man" --out heads --views heads.png
    """
    with one_message():
        files = _files(prompts, out, seed)
        for path in files:
            check_writable(check_free_file(path, overwrite))
        for sheet in (evolution, views):
            if sheet is not None:
                check_writable(check_target(sheet, overwrite))
        if prior == MINIATURE and (unknown := _unknown(" ".join(prompts))):
            click.echo(f"the diffusion model does not know {unknown}: they hardly change the head", err=True)
        loaded, diffusion = _load(source, prior, offline)
        import torch

        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.systems.heads.optimise import optimise as tune
        from dreamportrait.systems.heads.optimise import settings_for

        first, second = settings_for(diffusion)
        stages = {"shape": first if shape else None, "texture": second if texture else None}
        heads = []
        for prompt, path in zip(prompts, files, strict=True):
            heads.append(tune(loaded, prompt, diffusion, seed=seed, **stages))
            heads[-1].save_glb(path, overwrite=overwrite, provenance=provenance)
            if not as_json:
                size = path.stat().st_size / 1e6
                click.echo(f"wrote {path}: {loaded.num_expressions} blend shapes, {size:.1f} MB, seed {seed}")
        if evolution is not None and (shape or texture):
            save_sheet([torch.stack(made.evolution) for made in heads], evolution)
        if views is not None:
            save_sheet([made.view(SIDES).colors for made in heads], views)
    if as_json:
        common = {"seed": seed, "head": source, "prior": prior}
        facts = [
            {"out": str(path), "bytes": path.stat().st_size, "prompt": made.prompt}
            | common
            | {"weights": [round(value, 4) for value in made.beta.tolist()]}
            for made, path in zip(heads, files, strict=True)
        ]
        click.echo(json.dumps(facts[0] if len(facts) == 1 else facts))


def _files(prompts: tuple[str, ...], out: Path | None, seed: int) -> list[Path]:
    """Return the file of each prompt: `out` for one, files in the folder `out` for several."""
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("the prompt is empty; say how the head looks")
    check_quotes(prompts)
    if len(prompts) == 1:
        path = out or default_name(prompts[0], seed, ".glb")
        if path.suffix.lower() != ".glb":
            raise ValueError(f"{path}: must end in .glb")
        return [path]
    if out is not None and out.suffix.lower() == ".glb":
        raise ValueError(f"{out}: must be a folder, because there are {len(prompts)} prompts")
    files = [(out or Path()) / default_name(prompt, seed, ".glb") for prompt in prompts]
    if twice := [path.name for path in dict.fromkeys(files) if files.count(path) > 1]:
        raise ValueError(f"several prompts would be written to {listed(twice)}; their first words must differ")
    return files


def _unknown(prompt: str) -> str:
    """Return the words of a prompt that the miniature world has no captions with."""
    from dreamportrait.miniworld.grammar import split_words, vocabulary

    known = {word.lower() for word in vocabulary()}
    return listed([repr(word) for word in dict.fromkeys(split_words(prompt)) if word.lower() not in known])


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


glb = click.argument("source", metavar="GLB", type=click.Path(path_type=Path))
of_glb = click.option("--head", "model_folder", help="The head model of the GLB, if it is none of the known ones.")


@head.command("view")
@glb
@of_glb
@click.option("--yaw", default="-25 0 25", show_default=True, help="Degrees, separated by spaces or commas.")
@click.option("--pitch", type=float, default=0.0, show_default=True, help="Degrees above the front.")
@click.option("--size", type=click.IntRange(16, 2048), default=256, show_default=True, help="Pixels of each view.")
@click.option(
    "--set", "poses", multiple=True, metavar="NAME=VALUE", help="An expression from 0 to 1, or three angles of a joint."
)
@options.out("The picture to write.", "a .png beside the GLB")
@options.overwrite
def view_head(
    source: Path,
    model_folder: str | None,
    yaw: str,
    pitch: float,
    size: int,
    poses: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
) -> None:
    """Draw a head of `head optimise`, or the mean head of a model's folder, from several sides.

    \b
    Examples:
        dreamportrait head view man.glb
        dreamportrait head view man.glb --yaw "-40 0 40" --set jawOpen=0.6 --set neck=0,15,0 --out man.png
    """
    with one_message():
        yaws, wanted = _numbers("--yaw", yaw), dict(_pose(text) for text in poses)
        out = out or source.with_suffix(".png")
        check_writable(check_target(out, overwrite))
        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.systems.heads.saved import load_head

        shown = load_head(source, model_folder).posed(**wanted).view(yaws, pitch, size)
        save_sheet([shown.colors], out)
    click.echo(f"wrote {out}: {len(yaws)} views")


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) for value in found):
        raise ValueError(f"{option} {text!r}: must be numbers, separated by spaces or commas")
    return found


def _pose(text: str) -> tuple[str, float | tuple[float, float, float]]:
    """Return a name and its value, or its three angles, of NAME=VALUE."""
    name, _, value = text.partition("=")
    numbers = _numbers(f"--set {name}", value)
    if not name or len(numbers) not in (1, 3):
        raise ValueError(f"--set {text}: must be NAME=VALUE, or three angles in degrees: neck=0,15,0")
    return name, numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


@head.command()
@glb
@of_glb
@click.option("--track", "take", type=click.Path(path_type=Path), required=True, help=".csv, .json, .npz or .npy.")
@options.out("What to write: .glb, or a film as .mp4, .webm or .gif.", "NAME-animated.glb here")
@click.option("--targets", type=click.Choice(["all", "used"]), default="all", show_default=True, help="In a GLB.")
@click.option("--track-fps", type=click.FloatRange(0, 1000, min_open=True), help="Of a track without times.")
@click.option("--landmark-size", type=click.IntRange(1), help="Pixels of the square picture of 2D landmarks.")
@click.option("--lenient", is_flag=True, help="Leave out what the head does not know, and frames without a face.")
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True, help="Of a film.")
@click.option("--yaw", type=float, default=0.0, show_default=True, help="Degrees; from where a film is taken.")
@options.overwrite
@options.provenance
@options.as_json
def animate(
    source: Path,
    model_folder: str | None,
    take: Path,
    out: Path | None,
    targets: str,
    track_fps: float | None,
    landmark_size: int | None,
    lenient: bool,
    fps: int,
    yaw: float,
    overwrite: bool,
    provenance: bool,
    as_json: bool,
) -> None:
    """Move a head of `head optimise` as a filmed face moved, as a GLB with an animation or as a film.

    A track is a CSV of Live Link Face, MediaPipe's blend shapes as JSON, FLAME's parameters as npz, or landmarks as
    npy: docs/heads.md describes the fields. Many viewers add up only eight blend shapes: --targets used keeps those
    of the track.

    \b
    Examples:
        dreamportrait head animate man.glb --track take.csv --out talk.glb --targets used
        dreamportrait head animate man.glb --track landmarks.npy --landmark-size 512 --out talk.mp4
    """
    with one_message():
        out = out or Path(f"{source.stem}-animated.glb")
        film = out.suffix.lower() in VIDEO_SUFFIXES
        if film:
            check_video_target(out, fps, overwrite)
        elif out.suffix.lower() != ".glb":
            raise ValueError(f"{out}: must end in .glb, {', '.join(VIDEO_SUFFIXES)}")
        else:
            check_writable(check_free_file(out, overwrite))
        from dreamportrait.systems.heads.film import left_out, save_film
        from dreamportrait.systems.heads.saved import load_head
        from dreamportrait.systems.heads.tracks import read_track

        made = load_head(source, model_folder)
        track = read_track(take, made.model, fps=track_fps, size=landmark_size, lenient=lenient)
        lacks = 0.0 if film else left_out(made, track)
        if film:
            save_film(made, out, track, yaw=yaw, fps=fps, overwrite=overwrite, provenance=provenance)
        else:
            made.save_glb(out, track=track, only_used=targets == "used", overwrite=overwrite, provenance=provenance)
    facts = {
        "out": str(out),
        "bytes": out.stat().st_size,
        "moments": len(track.times),
        "seconds": round(float(track.times[-1] - track.times[0]), 3),
        "expressions": sorted(track.weights),
        "joints": sorted(track.rotations),
        "left_out": round(lacks, 6),
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(f"wrote {out}: {len(track.times)} moments, {facts['seconds']} s, {out.stat().st_size / 1e6:.1f} MB")
        if lacks:
            click.echo(f"without the corrections of turned joints, vertices are off by up to {lacks:.1%} of the height")


@head.command("from-portrait")
@click.argument("prompt")
@click.option("--head", "source", default="mini/head", show_default=True, help="The head model that is fitted.")
@options.out("The .glb to write.", "a .glb here, named after prompt and seed")
@click.option(
    "--views", type=click.Path(path_type=Path), help="Also draw the portrait and the fitted head, on a sheet."
)
@options.seed
@options.makes_heads
def from_portrait(
    prompt: str, source: str, out: Path | None, views: Path | None, seed: int, making: options.Making
) -> None:
    """Make a portrait of PROMPT in one pass and turn it into a GLB with blend shapes and joints.

    A head model is fitted to the portrait's depth, silhouette and colours, and painted with its pictures. Hair and hats
    become paint: the mesh is bald.

    \b
    Example:
        dreamportrait head from-portrait "an old man with a beard" --seed 3 --out old.glb
    """
    with one_message():
        out = out or default_name(prompt, seed, ".glb")
        if out.suffix.lower() != ".glb":
            raise ValueError(f"{out}: must end in .glb")
        check_writable(check_free_file(out, making.overwrite))
        if views is not None:
            check_writable(check_target(views, making.overwrite))
        from dreamportrait.systems.heads.folder import load_head_model

        model = load_head_model(source, making.offline)
        portrait = making.portrait(prompt, seed)
        from dreamportrait.export.sheets import save_sheet
        from dreamportrait.systems.heads.fit import YAWS, around, from_views

        seen = around(portrait.head)
        made = from_views(model, seen)
        made.save_glb(out, overwrite=making.overwrite, provenance=making.provenance)
        if views is not None:
            save_sheet([seen.colors, made.view(YAWS, size=seen.colors.shape[-1]).colors], views, scale=2)
    facts = {"out": str(out), "bytes": out.stat().st_size, "prompt": prompt, "seed": seed, "head": source}
    if making.as_json:
        click.echo(json.dumps(facts | {"model": making.model}))
    else:
        click.echo(f"wrote {out}: {model.num_expressions} blend shapes, {out.stat().st_size / 1e6:.1f} MB, seed {seed}")

"""The command `mix`, which mixes prompts or identities."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.cli.portraits import check_quotes
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_target
from dreamportrait.export.encoding import VIDEO_SUFFIXES, check_video_target

if TYPE_CHECKING:
    from dreamportrait.export.portraits import Portrait
    from dreamportrait.export.provenance import Claim
    from dreamportrait.export.video import Video
    from dreamportrait.systems.dreamportrait.mixing import Mix

FPS = 30


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        try:
            return [self.kind(part) for part in str(value).split(",")]
        except ValueError:
            what = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"{value!r}: give {what} with commas between them, such as 1,2", param, ctx)


@click.command()
@click.argument("prompts", nargs=-1, required=True)
@click.option("--steps", type=click.IntRange(min=2), help="Portraits from the first part to the last. Default: 7.")
@click.option("--weights", type=Numbers(float), help="Make one portrait of all parts: a weight for each, 0.3,0.7.")
@click.option(
    "--layers",
    type=Numbers(int),
    help="Make one portrait whose layers come from one part after the other: where each next part begins. The first "
    "layers decide most.",
)
@click.option(
    "--seeds",
    type=Numbers(int),
    default="0",
    show_default=True,
    help="Seeds of the identity: one, or one for each part.",
)
@click.option("--by-layers", is_flag=True, help="On the way, the next part takes over layer by layer, the last first.")
@click.option("--views", type=click.IntRange(min=1), help="Views of the one portrait. Default: 5.")
@options.out("The sheet to write, or a video of the whole way: .mp4, .webm or .gif.", "a .png here")
@options.makes_heads
def mix(
    prompts: tuple[str, ...],
    steps: int | None,
    weights: list[float] | None,
    layers: list[int] | None,
    seeds: list[int],
    by_layers: bool,
    views: int | None,
    out: Path | None,
    making: options.Making,
) -> None:
    """Mix several PROMPTS, or several seeds of one prompt, and draw the portraits on a sheet.

    Without --weights and --layers, the sheet shows the way from the first prompt (or seed) to the last.

    \b
    Examples:
        dreamportrait mix "a woman with red hair" "an old man with a hat"
        dreamportrait mix "a man" "an old man" "an old man with glasses" --steps 9 --seeds 3
        dreamportrait mix "a woman with red hair" --seeds 1,2
        dreamportrait mix "a man with a beard" "a woman" --weights 0.3,0.7
        dreamportrait mix "a man with a hat" "a woman with red hair" --layers 5
        dreamportrait mix "a young woman" "an old woman" --out older.mp4
        dreamportrait mix "a man with a hat" "a woman" --by-layers --out layers.mp4
    """
    with one_message():
        check_quotes(prompts)
        kinds = {"--steps": steps, "--weights": weights, "--layers": layers}
        if len(given := [name for name, value in kinds.items() if value is not None]) > 1:
            raise click.UsageError(f"{' and '.join(given)} are given; choose one of them")
        one = weights is not None or layers is not None
        if views is not None and not one:
            raise click.UsageError("--views is for one portrait, with --weights or --layers; steps show their fronts")
        if by_layers and one:
            raise click.UsageError("--by-layers is for the way between parts; leave out --weights and --layers")
        film = out is not None and out.suffix.lower() in VIDEO_SUFFIXES
        if film and (one or steps is not None):
            raise click.UsageError(f"{out} is a video, which shows the whole way; leave out --steps and --weights")
        out = out or default_name(" to ".join(prompts), int(seeds[0]), ".png")
        check_video_target(out, FPS, making.overwrite) if film else check_target(out, making.overwrite)
        options.check_place(out, making.model)
        pipe = making.load()
        count = (views or 5) if one else 1
        mixed = pipe.mix(
            prompts,
            seeds if len(seeds) > 1 else seeds[0],
            count,
            truncation=making.truncation,
            strength=making.strength,
        )
        if film:
            made = _film(mixed, out, by_layers, making)
            parts, what = list(prompts), f"{made.frames} frames"
        else:
            portraits = _portraits(mixed, weights, layers, steps or 7, by_layers)
            parts, what = [each.prompt for each in portraits], f"{len(portraits)} portraits"
            title = parts[0] if one else " to ".join(prompts)
            _save(portraits, title, out, making.overwrite, pipe.claim if making.provenance else None)
    if making.as_json:
        facts = {"out": str(out), "prompts": prompts, "seeds": seeds, "portraits": parts}
        click.echo(json.dumps({**facts, "model": making.model}))
    else:
        click.echo(f"wrote {out}: {what}, seeds {','.join(map(str, seeds))}")


def _film(mixed: "Mix", out: Path, by_layers: bool, making: options.Making) -> "Video":
    overwrite, provenance = making.overwrite, making.provenance
    return mixed.save_video(out, by_layers=by_layers, fps=FPS, overwrite=overwrite, provenance=provenance)


def _portraits(
    mixed: "Mix", weights: list[float] | None, layers: list[int] | None, steps: int, by_layers: bool
) -> list["Portrait"]:
    if weights is not None:
        return [mixed.blend(*weights)]
    return list(mixed.steps(steps, by_layers)) if layers is None else [mixed.layered(*layers)]


def _save(portraits: list["Portrait"], title: str, out: Path, overwrite: bool, claim: "Claim | None") -> None:
    import torch

    from dreamportrait.export.sheets import Row, draw_sheet, save_picture

    sheet = draw_sheet([Row(title, torch.cat([each.colors for each in portraits]))])
    save_picture(sheet, out, overwrite, claim=claim)

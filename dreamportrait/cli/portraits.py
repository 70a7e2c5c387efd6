"""The command `sample`, which makes portraits."""

import json
from pathlib import Path

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_target


@click.command()
@click.argument("prompts", nargs=-1, required=True)
@options.out("The sheet to write: .png, .jpg or .webp.", "a .png here, named after the first prompt and the seed")
@click.option(
    "--views",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Views of each portrait, from left to right.",
)
@click.option("--depth", is_flag=True, help="Add depth maps below the views.")
@options.seed
@options.makes_heads
def sample(
    prompts: tuple[str, ...],
    out: Path | None,
    views: int,
    depth: bool,
    seed: int,
    making: options.Making,
) -> None:
    """Make a portrait for each of PROMPTS and draw all portraits on a sheet, each in several views.

    Put each prompt in quotes. All portraits have the same seed.

    \b
    Examples:
        dreamportrait sample "a woman with red hair"
        dreamportrait sample "a man" "an old man" --seed 3 --views 7 --out men.png
        dreamportrait sample "a bald man with sunglasses" --strength 1.3 --json
        dreamportrait sample "a woman" --model runs/mini/portrait --truncation 0.7
    """
    with one_message():
        check_quotes(prompts)
        out = out or default_name(prompts[0], seed, ".png")
        check_target(out, making.overwrite)
        options.check_place(out, making.model)
        pipe = making.load()
        from dreamportrait.export.sheets import check_room

        check_room(out, len(prompts) * (1 + depth), views, pipe.generator.config.image_resolution)
        portraits = pipe(prompts, seed, views, truncation=making.truncation, strength=making.strength)
        portraits.save_sheet(out, depth, making.overwrite, provenance=making.provenance)
    if making.as_json:
        notes = {prompt: notes for prompt in prompts if (notes := pipe.prompt_notes(prompt))}
        facts = {
            "out": str(out),
            "prompts": prompts,
            "seed": seed,
            "views": views,
            "model": making.model,
            "notes": notes,
        }
        click.echo(json.dumps(facts))
    else:
        click.echo(f"wrote {out}: {len(prompts)} x {views} views, seed {seed}")


def check_quotes(prompts: tuple[str, ...]) -> None:
    """Raise UsageError if one of several prompts is a single word, because then quotes are missing."""
    if len(prompts) == 1 or not (single := [prompt for prompt in prompts if prompt and len(prompt.split()) == 1]):
        return
    joined = " ".join(prompts)
    raise click.UsageError(
        f"{len(prompts)} prompts, some of a single word ({', '.join(single[:5])}): is this one prompt without quotes? "
        f'Then write "{joined[:100]}". Several prompts need quotes each, and more than one word: "a man" "a woman"'
    )

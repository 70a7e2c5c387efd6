"""The group `style`: photos become styled heads, by a sentence or by a style that was learnt."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.cli.style_learning import evaluate, learn
from dreamportrait.cli.style_options import Drawing, Model, check_photo, draws, with_model
from dreamportrait.core.errors import one_message
from dreamportrait.systems.freestyle.names import locate_style, shipped_styles, styles_in

if TYPE_CHECKING:
    from dreamportrait.systems.freestyle.adapter import About, StyleAdapter

UNCHECKED = "nobody checked that the photo shows a face from the front, cropped as the training pictures are"


@click.group()
def style() -> None:
    """Styled heads of photos: by a sentence, or in a style that was learnt.

    \b
    Examples:
        dreamportrait style apply photo.png "turn the head into an elf"
        dreamportrait style learn "a gold statue" --out styles/gold
        dreamportrait style apply photo.png --style styles/gold --strength 0.8
    """


@style.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.argument("instruction", required=False)
@click.option("--style", "chosen", help="In place of an instruction: the folder of a learnt style, or a shipped one.")
@click.option(
    "--refine",
    type=click.IntRange(0, 1000),
    help="With an instruction: steps in which the head follows the edited photo; 0 = none, quicker.  [default: 12]",
)
@draws
@with_model
def apply(
    photo: Path, instruction: str | None, chosen: str | None, refine: int | None, drawing: Drawing, named: Model
) -> None:
    """Make a styled head of PHOTO, by an INSTRUCTION or with --style, and draw it in several views.

    The photo must be square, show the face from the front, and be cropped as the training pictures are. Several
    instructions in one text, separated by semicolons, are carried out one after another.

    \b
    Examples:
        dreamportrait style apply photo.png "turn the head into a gold statue" --out gold.png
        dreamportrait style apply photo.png "give it a wide hat; turn the head into a zombie"
        dreamportrait style apply photo.png --style styles/gold --strength 0.8 --save gold.glb
    """
    with one_message():
        if (instruction is None) == (chosen is None):
            raise click.UsageError("say what to make: either an INSTRUCTION in quotes, or --style")
        if instruction is not None and not instruction.strip():
            raise ValueError("the instruction is empty; say what to change, such as 'turn the head into an elf'")
        if instruction is not None and drawing.strength != 1:
            raise click.UsageError("--strength is of a learnt style; an instruction has none")
        if instruction is None and refine is not None:
            raise click.UsageError("--refine is of an instruction; a learnt style has none")
        check_photo(photo)
        out = drawing.target(photo.stem)
        if chosen is not None:
            locate_style(chosen)
        named.check_photo(photo, drawing.crop)
        pipe = named.load()
        if instruction is not None:
            made = pipe(photo, instruction, drawing.seed, drawing.views, crop=drawing.crop, refine=refine)
        else:
            assert chosen is not None
            made = pipe.apply(photo, chosen, drawing.strength, drawing.views, crop=drawing.crop, seed=drawing.seed)
        drawing.write(made, out)
    facts = {"out": str(out), "photo": str(photo), "instruction": instruction, "style": chosen}
    _say(facts, made.prompt, pipe.yaw_of is not None, drawing, named)


def _say(facts: Mapping[str, object], prompt: str, checked: bool, drawing: Drawing, named: Model) -> None:
    if drawing.as_json:
        saved = drawing.save and str(drawing.save)
        facts = {**facts, "strength": drawing.strength, "save": saved, "model": named.model, "seed": drawing.seed}
        click.echo(json.dumps({**facts, "photo_checked": checked}))
    else:
        click.echo(f"wrote {facts['out']}: {prompt}")
        if not checked:
            click.echo(UNCHECKED, err=True)


@style.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.argument("styles", nargs=-1, required=True, metavar="STYLE:WEIGHT...")
@draws
@with_model
def mix(photo: Path, styles: tuple[str, ...], drawing: Drawing, named: Model) -> None:
    """Make a head of PHOTO in a mixture of styles. Weights are divided by their sum; without one, it is 1.

    \b
    Example:
        dreamportrait style mix photo.png styles/gold:0.6 styles/elf:0.4
    """
    with one_message():
        weights = read_weights(styles)
        check_photo(photo)
        out = drawing.target(f"{photo.stem} mix")
        for name in weights:
            locate_style(name)
        named.check_photo(photo, drawing.crop)
        pipe = named.load()
        made = pipe.mix(photo, weights, drawing.strength, drawing.views, crop=drawing.crop, seed=drawing.seed)
        drawing.write(made, out)
    facts = {"out": str(out), "photo": str(photo), "styles": weights}
    _say(facts, made.prompt, pipe.yaw_of is not None, drawing, named)


def read_weights(words: tuple[str, ...]) -> dict[str, float]:
    """Return the weights of STYLE:WEIGHT by style. Raise ValueError for wrong ones."""
    found: dict[str, float] = {}
    for word in words:
        name, colon, number = word.rpartition(":")
        name, number = (name, number) if colon else (word, "1")
        try:
            weight = float(number)
        except ValueError:
            raise ValueError(f"{word}: the weight {number!r} is no number; write it as styles/gold:0.6") from None
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{word}: a weight must be a number from 0")
        if name in found:
            raise ValueError(f"{name} is named twice; name each style once")
        found[name] = weight
    if not sum(found.values()):
        raise ValueError(f"the weights of {', '.join(found)} sum to 0; at least one must be above 0")
    return found


@style.command("list")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@options.as_json
def list_styles(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the styles in FOLDERS (default: styles) and those that come with the package.

    \b
    Example:
        dreamportrait style list
    """
    with one_message():
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder} is no folder; name one that holds folders of styles")
        known = {str(path): path for folder in folders or (Path("styles"),) for path in styles_in(folder)}
        known |= shipped_styles()
        if known:
            from dreamportrait.systems.freestyle.adapter import read_about
        rows = {name: read_about(path) for name, path in known.items()}
    if as_json:
        click.echo(json.dumps({name: asdict(about) for name, about in rows.items()}))
    elif not rows:
        click.echo("no styles; `dreamportrait style learn` learns one")
    for name, about in rows.items() if not as_json else ():
        click.echo(f"{name}: {about.styles[0]}; {_made(about)}")


@style.command()
@click.argument("source", metavar="STYLE")
@options.as_json
def inspect(source: str, as_json: bool) -> None:
    """Show what a style is made of: its words, how it was learnt, its scores, its network.

    \b
    Example:
        dreamportrait style inspect styles/gold
    """
    with one_message():
        folder = locate_style(source)
        from dreamportrait.systems.freestyle.adapter import StyleAdapter

        adapter = StyleAdapter.load(folder)
    click.echo(json.dumps(asdict(adapter.about)) if as_json else described(adapter, folder))


def described(adapter: "StyleAdapter", folder: Path) -> str:
    about = adapter.about
    numbers = sum(x.numel() for x in adapter.tensors.values())
    start = "pure noise" if about.start is None else f"{about.start:g} of the noise"
    size = sum(path.stat().st_size for path in folder.iterdir())
    lines = [
        ("style", "; ".join(about.styles)),
        ("made of", f"{_made(about)}; {numbers:,} numbers, {size / 1e3:.0f} kB"),
        ("told", adapter.instruction.positive),
        ("not", adapter.instruction.negative),
        ("editor", f"{about.steps} steps from {start}, scales {about.image_scale:g} and {about.text_scale:g}"),
        ("network", f"{about.base}, SHA-256 {about.base_sha256[:12]}"),
        ("licence", about.licence),
        *((score.name, f"{score.value:g}") for score in about.scores),
        *((("note", note),) if (note := adapter.note()) else ()),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


def _made(about: "About") -> str:
    kind = "all weights" if about.rank is None else f"rank {about.rank}"
    reads = "the photo itself" if about.input == "source" else "the edited photo"
    return f"{kind}, {len(about.seeds)} identities x {about.views} views, reads {reads}"


style.add_command(learn)
style.add_command(evaluate)

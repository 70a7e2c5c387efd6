"""The commands `data`: from a folder of photographs and captions to a training set that is checked."""

import json
import sys
from pathlib import Path

import click

from dreamportrait.cli.data_prepare import LAYOUTS, Bars, a_path, continued, make_prepare
from dreamportrait.core.errors import DataError, one_message

PREPARE = """Prepare photographs with captions for training.

IN is a folder or zip file of photographs, OUT the folder to write. Each face is found, cropped as EG3D's FFHQ crops
are, and given the camera that it was seen from. If the command was stopped, the same command continues it.

\b
Examples:
    dreamportrait data prepare photos prepared --resolution 512 --workers 8
    dreamportrait data prepare CelebAText-HQ prepared --layout celeba-text-hq --largest-face
    dreamportrait data prepare ffhq.zip prepared --layout eg3d --captions captions.jsonl
"""


@click.group()
def data() -> None:
    """Make, check and describe data sets for training."""


data.add_command(make_prepare(None, PREPARE))


@data.command()
@click.argument("source", metavar="IN", type=a_path)
@click.argument("out", metavar="OUT.jsonl", type=a_path)
@click.option("--layout", type=click.Choice(LAYOUTS), default="folder", show_default=True, help="Of IN.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--networks", type=a_path, help="The wheel with the face networks. Default: the cache, else pip.")
@click.option("--offline", is_flag=True, help="Download nothing.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.jsonl if it exists.")
def landmarks(
    source: Path, out: Path, layout: str, workers: int, networks: Path | None, offline: bool, overwrite: bool
) -> None:
    """Write the landmarks of all faces in IN, for a look or for other tools.

    `data prepare` does this by itself; its option --landmarks reads such a file, whoever wrote it. If the command was
    stopped, the same command continues it.
    """
    with one_message(), Bars() as bars:
        from dreamportrait.core.files import check_target
        from dreamportrait.data.preparation.finding import find_landmarks
        from dreamportrait.data.preparation.layouts import open_source
        from dreamportrait.data.preparation.settings import Settings
        from dreamportrait.data.preparation.steps import Networks

        check_target(out, overwrite, (".jsonl",))
        settings = Settings(layout, aligned=layout == "eg3d")
        with continued():
            found = find_landmarks(
                open_source(source, layout), out, settings, Networks(networks, offline), workers, bars
            )
    for file, problem in found.unreadable.items():
        click.echo(f"{file}: {problem}", err=True)
    told = f"{found.faces} faces in {found.photographs} photographs, {len(found.unreadable)} could not be read"
    click.echo(f"wrote {out}: {told}")


@data.command()
@click.argument("path", metavar="OUT", type=a_path)
@click.option("--sheet", type=a_path, help="Draw this contact sheet. Default: contact.png in OUT, if OUT is prepared.")
@click.option("--quick", is_flag=True, help="Check labels, captions and names only, no pictures.")
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True, help="Problems to print.")
@click.option("--json", "as_json", is_flag=True, help="Print all problems as JSON.")
def validate(path: Path, sheet: Path | None, quick: bool, most: int, as_json: bool) -> None:
    """Check a prepared data set, or a folder or zip file with EG3D's dataset.json.

    Every problem names its file and row. The exit code is 1 if there is one. The contact sheet shows the head's box and
    axes as the labels say: look at it before you train.
    """
    with one_message():
        from dreamportrait.core.files import replacing
        from dreamportrait.data.contact import contact_sheet
        from dreamportrait.data.index import is_prepared
        from dreamportrait.data.validation import count_rows, validate

        with click.progressbar(length=count_rows(path), label="checking", file=sys.stderr) as bar:
            report = validate(path, not quick, bar.update)
        sheet = sheet or (path / "contact.png" if is_prepared(path) else None)
        if sheet is not None and report.rows:
            with replacing(sheet) as unfinished:
                contact_sheet(report.rows).save(unfinished)
    if as_json:
        rows = [{"where": problem.where, "what": problem.what} for problem in report.problems]
        click.echo(json.dumps({"pictures": report.pictures, "dropped": report.dropped, "problems": rows}, indent=2))
    else:
        for problem in report.problems[:most]:
            click.echo(str(problem))
        hidden = len(report.problems) - most
        click.echo(
            f"{report.pictures} pictures, {len(report.problems)} problems" + (f", {hidden} not shown" * (hidden > 0))
        )
        if sheet is not None and report.rows:
            click.echo(f"wrote {sheet}: do the boxes hold the faces?")
    if report.problems:
        raise SystemExit(1)


@data.command()
@click.argument("path", metavar="OUT", type=a_path)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(path: Path, as_json: bool) -> None:
    """Describe a prepared data set: splits, what was dropped and why, captions, poses."""
    with one_message():
        from dreamportrait.data.summary import as_text, summarise

        facts = summarise(path)
    click.echo(json.dumps(facts, indent=2) if as_json else as_text(facts))


@data.command()
@click.argument("prepared", metavar="PREPARED", type=a_path)
@click.argument("out", metavar="OUT", type=a_path)
@click.option("--split", default="train", show_default=True, help="train, validation, test or all.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is a data set.")
def export(prepared: Path, out: Path, split: str, overwrite: bool) -> None:
    """Write a split as EG3D reads it: PNGs and dataset.json, in a folder or, if OUT ends in .zip, a zip file."""
    with one_message():
        from dreamportrait.data.exporting import export
        from dreamportrait.data.index import is_prepared

        if not is_prepared(prepared):
            raise DataError(f"{prepared} is no prepared data set; `dreamportrait data prepare` writes one")
        with click.progressbar(length=count(prepared, split), label="writing") as bar:
            written = export(prepared, out, split, overwrite, bar.update)
    click.echo(f"wrote {out}: {written} pictures")


def count(prepared: Path, split: str) -> int:
    from dreamportrait.data.index import Entry, read_index

    return sum(isinstance(row, Entry) and split in (row.split, "all") for row in read_index(prepared))

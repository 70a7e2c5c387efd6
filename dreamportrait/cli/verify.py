"""The command `verify`, which reads what a file says about its origin."""

import json
from pathlib import Path

import click

from dreamportrait.core.errors import shown
from dreamportrait.export.provenance import Evidence, inspect

FOUND, NONE, UNREADABLE = 0, 1, 2  # exit codes


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def verify(context: click.Context, file: Path, as_json: bool) -> None:
    """Read whether FILE says that it was made by AI, and by which model.

    FILE may be a PNG, JPEG, WEBP, GIF, MP4, WEBM, GLB or HTML file, or any file with a FILE.provenance.json beside
    it. It may come from anywhere. A statement is a label: without a signature, anyone can write, change or remove it.

    \b
    Exit codes:
        0   there is a statement
        1   there is none, which does not mean that no AI was used
        2   the file cannot be read, is damaged, or contradicts itself

    \b
    Examples:
        dreamportrait verify head.png
        dreamportrait verify head.ply --json
    """
    try:
        evidence = inspect(file)
    except (ValueError, OSError) as error:
        if as_json:
            click.echo(json.dumps({"file": str(file), "error": str(error)}))
        else:
            click.echo(f"Error: {error}", err=True)
        context.exit(UNREADABLE)
    if as_json:
        click.echo(json.dumps({"file": str(file), **_facts(evidence)}))
    else:
        click.echo(f"{file}: {_described(evidence)}")
    context.exit(FOUND if evidence else NONE)


def _facts(evidence: Evidence | None) -> dict[str, object]:
    if evidence is None:
        return {"claim": None}
    return {**evidence._asdict(), "claim": evidence.claim.to_dict()}


def _described(evidence: Evidence | None) -> str:
    """Return lines for a terminal. Texts of the file are quoted, because they may hold anything."""
    if evidence is None:
        return "no statement about its origin. This does not mean that no AI was used."
    claim = evidence.claim
    lines = ["it says that it was made by AI", f"{'stated in':12} {', '.join(map(shown, evidence.places))}"]
    lines += [f"{name:12} {shown(text)}" for name, text in vars(claim).items() if text]
    if evidence.unchecked:
        signature = "there is one, which pip install 'dreamportrait[c2pa]' lets this command check"
    elif evidence.signer is None:
        signature = "none: anyone may have written this statement"
    else:
        signature = f"by {shown(evidence.signer)}, and fits the file; whether to trust that name is up to you"
    return "\n  ".join([*lines, f"{'signature':12} {signature}"])

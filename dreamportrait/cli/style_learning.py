"""The commands `style learn` and `style evaluate`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait.cli import options
from dreamportrait.cli.style_options import Model, with_model
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_free, check_target, check_writable, write_text
from dreamportrait.systems.freestyle.names import locate_style
from dreamportrait.systems.freestyle.prompts import read_styles

if TYPE_CHECKING:
    from dreamportrait.systems.freestyle.learning import Request

MOST_VIEWS = 1000  # in all, without --yes: about ten times the default
UNSEEN = 1_000_000  # the seed of the first face to measure; learning counts up from its own


@click.command()
@click.argument("words", metavar="[STYLE]", required=False)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="In place of STYLE: a file with one wording of it in each line."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of the style to write.")
@click.option("--paper", is_flag=True, help="As in the paper: one identity, 100 views, edited fronts, all weights.")
@click.option("--identities", type=click.IntRange(min=1), help="Faces to learn from.  [default: the model's, 10]")
@click.option("--views", type=click.IntRange(min=1), help="Edited views of each face.  [default: the model's, 10]")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the first face.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file whose sections edit and tune apply.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting: tune.steps=600.")
@click.option("--yes", is_flag=True, help=f"Edit more than {MOST_VIEWS} views without a question.")
@with_model
@options.as_json
def learn(
    words: str | None,
    prompts: Path | None,
    out: Path,
    paper: bool,
    identities: int | None,
    views: int | None,
    seed: int,
    config: Path | None,
    changes: tuple[str, ...],
    yes: bool,
    named: Model,
    as_json: bool,
) -> None:
    """Learn a STYLE, such as "a gold statue", and write it to the folder --out.

    The generator draws faces, the editor styles their views, and the network is tuned on them. The style then works
    for every photo; with --paper, for one face. A command that was stopped continues when it is given again. The edited
    views stay in OUT.learning, as a data set.

    \b
    Examples:
        dreamportrait style learn "a gold statue" --out styles/gold
        dreamportrait style learn --prompts wizard.txt --out styles/wizard
        dreamportrait style learn "a gold statue" --paper --seed 3 --out styles/gold3
    """
    from dreamportrait.core.signals import Interrupted, Signals

    try:
        with one_message(), Signals() as signals:
            if (words is None) == (prompts is None):
                raise click.UsageError("name one style in quotes, or a file of wordings with --prompts")
            styles = [str(words)] if prompts is None else read_styles(prompts)
            if not all(each.strip() for each in styles):
                raise ValueError("the style is empty; say what the head is to become, such as 'a gold statue'")
            folder = named.check()
            from dreamportrait.systems.freestyle.adapter import FILES
            from dreamportrait.systems.freestyle.learning import work_folder

            check_free(out, False, FILES)
            check_writable(out)
            wanted = {"identities": identities, "views": views}
            request, editor = read_request(folder, styles, config, changes, seed, wanted, paper)
            check_count(request, yes)
            pipe = replace(named, editor=named.editor or editor).load()
            learnt = pipe.learnt(request, work_folder(out), partial(click.echo, err=True), signals)
            learnt.adapter.save(out, learnt.sheet)
    except Interrupted as stopped:
        click.echo(stopped.message, err=True)
        raise SystemExit(stopped.code) from None
    scores = {score.name: score.value for score in learnt.adapter.about.scores}
    facts = {"out": str(out), "styles": styles, "scores": scores, "saturated": learnt.saturated, "model": named.model}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        shown = ", ".join(f"{name} {value:g}" for name, value in scores.items())
        click.echo(f"wrote {out}: {styles[0]}; {shown}; {learnt.saturated:.1%} of the editor's colours were clipped")


def read_request(
    model: Path,
    styles: Sequence[str],
    config: Path | None,
    changes: Sequence[str],
    seed: int,
    wanted: Mapping[str, int | None],  # identities and views. None = as configured
    paper: bool,
) -> "tuple[Request, str | None]":
    """Return what is to be learnt, and the editor that the settings name. No weights are read."""
    from dreamportrait.systems.freestyle.folder import read_model
    from dreamportrait.systems.freestyle.learning import Request, as_in_the_paper
    from dreamportrait.systems.freestyle.run_config import Learning

    found = Learning.read(read_model(model), config, changes)
    request = Request(tuple(styles), found.edit.settings(seed), found.tune.settings(seed), found.tune.perceptual)
    request = as_in_the_paper(request) if paper else request
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    return replace(request, few_shot=replace(request.few_shot, **given)), found.edit.source


def check_count(request: "Request", yes: bool) -> None:
    how = request.few_shot
    if (count := how.identities * how.views) > MOST_VIEWS and not yes:
        raise ValueError(
            f"{how.identities} identities x {how.views} views are {count} pictures to edit, more than {MOST_VIEWS}; "
            "ask for less, or add --yes"
        )


@click.command()
@click.argument("source", metavar="STYLE")
@click.option("--faces", type=click.IntRange(2, 1000), default=50, show_default=True, help="Unseen faces to style.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=UNSEEN, show_default=True, help="Of the first face.")
@click.option("--oracle", default="mini/style-oracle", show_default=True, help="Reads styles and attributes; or none.")
@click.option("--clip", default="none", show_default=True, help="Compares pictures with words; or none.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the scores to a .json file.")
@with_model
@options.overwrite
@options.as_json
def evaluate(
    source: str,
    faces: int,
    seed: int,
    oracle: str,
    clip: str,
    out: Path | None,
    named: Model,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure a STYLE on faces that it has not seen.

    The judges trained nothing. docs/styles.md explains the scores.

    \b
    Example:
        dreamportrait style evaluate styles/gold --faces 50 --out gold.json
    """
    with one_message():
        folder = locate_style(source)
        if out is not None:
            check_writable(check_target(out, overwrite, (".json",)))
        named.check()
        from dreamportrait.systems.freestyle.judges import load_judges
        from dreamportrait.systems.freestyle.unseen import unseen_scores

        judges = load_judges(oracle, clip, named.offline)
        pipe = named.load()
        scores = unseen_scores(pipe, pipe.style(folder), judges, range(seed, seed + faces))
        facts = {"style": source, "faces": faces, "seed": seed, "oracle": oracle, "clip": clip, "scores": scores}
        if out is not None:
            write_text(out, json.dumps(facts, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in scores.items():
            click.echo(f"{name:<15}{value:.4g}")

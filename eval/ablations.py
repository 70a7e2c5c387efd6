"""Train and measure the rows of the paper's ablations, and write docs/ablations.md.

\b
    python eval/ablations.py --world mini --seeds 3
    python eval/ablations.py --world mini --rows base,no-gate --images 1600 --out runs/short
    python eval/ablations.py --render

The command prints a line when a row begins and when it ends, so it can run in the background. If it was stopped, the
same command continues. All rows of one seed come before those of the next.
"""

import signal
import sys
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING

import click

from dreamportrait.core.errors import one_message
from dreamportrait.systems.dreamportrait.ablations.rows import WORLDS

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.ablations.study import Study

ROOT = Path(__file__).resolve().parents[1]


@click.command(help=__doc__)
@click.option("--world", type=click.Choice(list(WORLDS)), default="mini", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings per row.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="Images of the last stage; the average's half-life is scaled too.  [default: as configured]",
)
@click.option("--samples", type=click.IntRange(min=2), default=1000, show_default=True, help="Samples per measurement.")
@click.option("--rows", metavar="NAME,NAME", help="Run only these rows; docs/ablations.md lists them.  [default: all]")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/ablations"), show_default=True
)
@click.option(
    "--config", metavar="YAML", help="The whole method.  [default: that of --world, configs/dreamportrait/mini.yaml]"
)
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), help="The page to write.  [default: docs/ablations.md]"
)
@click.option("--render", is_flag=True, help="Only write the page, from the results in --out.")
@click.option("--plan", is_flag=True, help="Only check the study and print the command of each training.")
@click.option("--clip-weight", is_flag=True, help="Only measure the weight of CLIP's loss for row clip.")
def main(
    world: str,
    seeds: int,
    images: int | None,
    samples: int,
    rows: str | None,
    out: Path,
    config: str | None,
    page: Path | None,
    render: bool,
    plan: bool,
    clip_weight: bool,
) -> None:
    page = page or ROOT / "docs" / "ablations.md"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises SystemExit, which also ends the training process
    with one_message():
        if sum((render, plan, clip_weight)) > 1:
            raise ValueError("--render, --plan and --clip-weight exclude each other; choose one")
        if render:
            write_page(out, page)
            return
        from dreamportrait.systems.dreamportrait.ablations import study as studies

        named = config or WORLDS[world].config
        path = Path(named) if config else ROOT / named
        study = studies.Study(ROOT, out, named, path, world, studies.choose(rows), seeds, images, samples)
        if clip_weight:
            say_clip_weight(path)
        elif plan:
            studies.check(study)
            say_plan(study)
        else:
            fill(study, page)


def fill(study: "Study", page: Path) -> None:
    from dreamportrait.systems.dreamportrait.ablations import runs

    failed = runs.run(study, click.echo)
    write_page(study.out, page)
    if failed:
        names = ", ".join(job.name for job in failed)
        raise click.ClickException(f"{len(failed)} failed: {names}; the same command tries them again")


def say_plan(study: "Study") -> None:
    from dreamportrait.systems.dreamportrait.ablations.study import placed, result_path

    for job in study.jobs():
        done = ", has a result already" if result_path(study.out, job).exists() else ""
        if job.row.trained:
            changes = " ".join(f"--set '{change}'" for change in placed(study, job))
            click.echo(f"# {job.name}{done}\npython train.py --config {study.config} {changes}")
        else:
            click.echo(f"# {job.name}{done}: measured without training")


def say_clip_weight(path: Path) -> None:
    from dreamportrait.systems.dreamportrait.ablations.clip_weight import clip_weight
    from dreamportrait.systems.dreamportrait.ablations.rows import CLIP_WEIGHT_FOR
    from dreamportrait.systems.dreamportrait.config import load_config
    from dreamportrait.training.resume import computed

    config = load_config(path)
    found, settings = clip_weight(config), computed(config)
    own = pformat({key: settings[key] for key in CLIP_WEIGHT_FOR}, sort_dicts=False)
    click.echo(
        f"mean length of the gradient at {found.pictures} pictures: D-SDS {found.sds:.4g}, CLIP {found.clip:.4g}; "
        "for dreamportrait/systems/dreamportrait/ablations/rows.py:\n\n"
        f"CLIP_WEIGHT = {found.weight:.3g}\n"
        f"CLIP_WEIGHT_FOR: dict[str, Any] = {own}"
    )


def write_page(out: Path, page: Path) -> None:
    from dreamportrait.core.files import write_text
    from dreamportrait.systems.dreamportrait.ablations.page import render
    from dreamportrait.systems.dreamportrait.ablations.study import read_results

    if not out.is_dir():
        raise FileNotFoundError(
            f"--out {out}: is not there; name the --out folder of an earlier run, or run without --render"
        )
    write_text(page, render(read_results(out)))
    click.echo(f"wrote {page}")


if __name__ == "__main__":
    main()

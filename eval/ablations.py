"""Train and measure the rows of the paper's ablations, and write docs/ablations.md.

\b
    python eval/ablations.py --world mini --seeds 3 --split test
    python eval/ablations.py --world mini --rows base,no-gate --images 1600 --out runs/short
    python eval/ablations.py --world data/celebatext_hq --config lab_paper.yaml --clip weights/judge --samples 2000
    python eval/ablations.py --render

--world is mini, or the folder of a data set that `dreamportrait data prepare` wrote. The configuration then names the
generator, CLIP and diffusion model; data.path is the folder. Devices and precision are those of the configuration.

OUT/results holds a file for each row and seed. OUT/conclusion.md, if there is one, begins the page: write there what
you read in the results. Those of docs/ablations.md are in benchmarks/results/ablations.

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
from dreamportrait.systems.dreamportrait.ablations.rows import FULL_CONFIG, MINI, WORLDS, rows_in, world_of

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.ablations.study import Study

ROOT = Path(__file__).resolve().parents[1]
CONCLUSION = "conclusion.md"


@click.command(help=__doc__)
@click.option("--world", metavar="mini|FOLDER", default=MINI, show_default=True)
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="To measure on. Choose on validation, and read test once.",
)
@click.option("--clip", "judge", help="The CLIP that judges.  [default: as for `dreamportrait evaluate`]")
@click.option("--extractor", help="Of the distance.  [default: as for `dreamportrait evaluate`]")
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
    "--config", metavar="YAML", help=f"The whole method.  [default: {WORLDS[MINI].config}; of a FOLDER: {FULL_CONFIG}]"
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page to write.  [default: docs/ablations.md; of a FOLDER: OUT/ablations.md]",
)
@click.option("--render", is_flag=True, help="Only write the page, from the results in --out.")
@click.option("--plan", is_flag=True, help="Only check the study and print the command of each training.")
@click.option("--clip-weight", is_flag=True, help="Only measure the weight of CLIP's loss for row clip.")
def main(
    world: str,
    split: str,
    judge: str | None,
    extractor: str | None,
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
    page = page or (ROOT / "docs" if world == MINI else out) / "ablations.md"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises SystemExit, which also ends the training process
    with one_message():
        if sum((render, plan, clip_weight)) > 1:
            raise ValueError("--render, --plan and --clip-weight exclude each other; choose one")
        if render:
            write_page(out, page)
            return
        study = make_study(world, split, judge, extractor, seeds, images, samples, rows, out, config)
        if clip_weight:
            say_clip_weight(study)
        elif plan:
            from dreamportrait.systems.dreamportrait.ablations.study import check

            check(study)
            say_plan(study)
        else:
            fill(study, page)


def make_study(
    world: str,
    split: str,
    judge: str | None,
    extractor: str | None,
    seeds: int,
    images: int | None,
    samples: int,
    rows: str | None,
    out: Path,
    config: str | None,
) -> "Study":
    from dreamportrait.data.index import is_prepared
    from dreamportrait.systems.dreamportrait.ablations import study as studies

    if world not in WORLDS and not is_prepared(Path(world)):
        raise ValueError(f"--world {world}: must be {MINI}, or a folder that `dreamportrait data prepare` wrote")
    found = world_of(world)
    named = config or found.config
    path = Path(named) if config else ROOT / named
    sites, by_ratio = studies.sites_and_ratio(path, found.changes)
    chosen = studies.choose(rows, rows_in(world, sites, by_ratio))
    dataset = f"{found.dataset}:{split}"
    return studies.Study(
        ROOT,
        out,
        named,
        path,
        world,
        chosen,
        seeds,
        images,
        samples,
        dataset,
        changes=found.changes,
        judge=judge,
        extractor=extractor,
        sites=sites,
    )


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


def say_clip_weight(study: "Study") -> None:
    from dreamportrait.systems.dreamportrait.ablations.clip_weight import clip_weight
    from dreamportrait.systems.dreamportrait.ablations.rows import CLIP_WEIGHT_FOR
    from dreamportrait.systems.dreamportrait.ablations.study import base_config
    from dreamportrait.training.resume import computed

    config = base_config(study)
    found, settings = clip_weight(config), computed(config)
    own = pformat({key: settings[key] for key in CLIP_WEIGHT_FOR}, sort_dicts=False)
    click.echo(
        f"mean length of the gradient at {found.pictures} pictures: D-SDS {found.sds:.4g}, CLIP {found.clip:.4g}; "
        "for dreamportrait/systems/dreamportrait/ablations/rows.py:\n\n"
        f"CLIP_WEIGHT = {found.weight:.3g}\n"
        f"CLIP_WEIGHT_FOR: dict[str, Any] = {own}"
    )


def write_page(out: Path, page: Path) -> None:
    from dreamportrait.core.files import MEBIBYTE, read_text, write_text
    from dreamportrait.systems.dreamportrait.ablations.page import render
    from dreamportrait.systems.dreamportrait.ablations.study import read_results

    if not out.is_dir():
        raise FileNotFoundError(
            f"--out {out}: is not there; name the --out folder of an earlier run, or run without --render"
        )
    said = out / CONCLUSION
    write_text(page, render(read_results(out), read_text(said, MEBIBYTE) if said.exists() else ""))
    click.echo(f"wrote {page}")


if __name__ == "__main__":
    main()

"""Compare guidance losses: train rows from one checkpoint, measure them, and write a table.

\b
    python eval/guidance.py --start runs/mini/checkpoints/images-000000640.ckpt --images 8000
    python eval/guidance.py --start ... --minutes 20 --rows start,nothing,sds,dmd --seeds 3
    python eval/guidance.py --start ... --costs
    python eval/guidance.py --start ... --sheet
    python eval/guidance.py --render

All rows train from the same checkpoint, for the same number of images or, with --minutes, for the same time by the
measured cost of a step. Each row has the guidance weight at which its gradient is as long as that of D-SDS. If the
command was stopped, the same command continues. docs/guidance.md explains the rows.
"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.core.errors import one_message

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.ablations.guidance import Lengths
    from dreamportrait.systems.dreamportrait.ablations.study import Study

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/dreamportrait/mini.yaml"


@click.command(help=__doc__)
@click.option("--start", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Checkpoint to train from.")
@click.option("--config", metavar="YAML", help=f"The whole method.  [default: {CONFIG}]")
@click.option(
    "--rows", metavar="NAME,NAME", help="Run only these rows.  [default: start,nothing,sds,asd,csd,dmd,dmd-js]"
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings per row.")
@click.option("--images", type=click.IntRange(min=1), help="Images that every row trains for.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes that every row trains for.")
@click.option(
    "--fake", multiple=True, metavar="KEY=VALUE", help="A setting of the fake score in rows with dmd, as updates=4."
)
@click.option("--encoder", type=click.Path(path_type=Path, file_okay=False), help="Small encoder of row sds-small.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Pairs of w and text for rows pairs, pairs-alone and sds-pairs: RUN/prior/pairs.safetensors.",
)
@click.option("--pair-weight", type=click.FloatRange(min=0, min_open=True), default=14.0, show_default=True)
@click.option("--samples", type=click.IntRange(min=2), default=1000, show_default=True, help="Samples per measurement.")
@click.option("--dataset", default="miniworld:validation", show_default=True, help="The data set to measure on.")
@click.option("--also", metavar="DATA", help="A second data set to measure on, such as miniworld:combinations.")
@click.option("--pictures", type=click.IntRange(min=1), default=512, show_default=True, help="To match weights with.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/guidance"), show_default=True
)
@click.option("--costs", is_flag=True, help="Only measure the time of a step of each row.")
@click.option("--sheet", is_flag=True, help="Only draw the configuration's samples of every row that was measured.")
@click.option("--render", is_flag=True, help="Only write the table, from the results in --out.")
def main(
    start: Path | None,
    config: str | None,
    rows: str | None,
    seeds: int,
    images: int | None,
    minutes: float | None,
    fake: tuple[str, ...],
    encoder: Path | None,
    pairs: Path | None,
    pair_weight: float,
    samples: int,
    dataset: str,
    also: str | None,
    pictures: int,
    out: Path,
    costs: bool,
    sheet: bool,
    render: bool,
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises SystemExit, which also ends the training process
    with one_message():
        if sum((costs, sheet, render)) > 1:
            raise ValueError("--costs, --sheet and --render exclude each other; choose one")
        if render:
            write_table(out)
            return
        if start is None:
            raise ValueError("--start: missing; name the checkpoint that every row begins from")
        from dreamportrait.systems.dreamportrait.ablations import guidance
        from dreamportrait.systems.dreamportrait.ablations.study import Study, choose

        named = config or CONFIG
        path = Path(named) if config else ROOT / named
        chosen = guidance.with_fake(choose(rows or ",".join(guidance.USUAL), guidance.ALL), fake)
        chosen = guidance.with_encoder(chosen, encoder)
        chosen = guidance.with_pairs(chosen, pairs and pairs.resolve(), pair_weight)
        study = Study(ROOT, out, named, path, "mini", chosen, seeds, None, samples, dataset, start.resolve(), also=also)
        if costs:
            say_costs(study)
            return
        if sheet:
            write_sheet(study)
            return
        if (images is None) == (minutes is None):
            raise ValueError("--images, --minutes: give exactly one of them")
        fill(study, pictures, guidance.Lengths(images, minutes))


def fill(study: "Study", pictures: int, lengths: "Lengths") -> None:
    from dreamportrait.systems.dreamportrait.ablations import guidance, runs

    found = guidance.weights(study, pictures)
    failed = runs.run(guidance.tailored(study, found, lengths), click.echo)
    write_table(study.out)
    if failed:
        names = ", ".join(job.name for job in failed)
        raise click.ClickException(f"{len(failed)} failed: {names}; the same command tries them again")


def say_costs(study: "Study") -> None:
    from dreamportrait.systems.dreamportrait.ablations.guidance import costs

    for name, cost in costs(study).items():
        warm_up = f", and {cost.warm_up:.1f} s of warm-up" if cost.warm_up else ""
        click.echo(f"{name:8} {cost.seconds_per_step:.3f} s a step{warm_up}")


def write_sheet(study: "Study") -> None:
    """Write OUT/guidance.png: a line for each measured row, with the first seed's portraits of the sample prompts."""
    import torch

    from dreamportrait.export.sheets import Row, draw_sheet, save_picture
    from dreamportrait.metrics.subject import latents
    from dreamportrait.systems.dreamportrait.ablations.study import Job, base_config, result_path
    from dreamportrait.systems.dreamportrait.subject import load_subject
    from dreamportrait.training.run_folder import RESULT

    samples, lines = base_config(study).samples, []
    prompts = [prompt for prompt in samples.prompts for _ in samples.seeds]
    for job in (Job(row, 0) for row in study.rows):
        if result_path(study.out, job).exists():
            source = study.out / "trainings" / job.name / RESULT if job.row.trained else study.start
            subject = load_subject(str(source)).subject
            z = torch.cat(
                [latents(subject.config.z_dim, seed, 0, [0]) for seed in samples.seeds] * len(samples.prompts)
            )
            with torch.no_grad():
                head = subject.portray(prompts, z, samples.truncation)
                lines.append(Row(job.row.what, head.view(subject.config.around([0.0]).expand(len(z), -1)).image))
    save_picture(draw_sheet(lines), study.out / "guidance.png", overwrite=True)
    click.echo(f"wrote {study.out / 'guidance.png'}")


def write_table(out: Path) -> None:
    """Write OUT/guidance.json with all results and OUT/guidance.md with the table."""
    import json

    from dreamportrait.core.files import write_text
    from dreamportrait.systems.dreamportrait.ablations import guidance
    from dreamportrait.systems.dreamportrait.ablations.study import read_results

    if not (out / "results").is_dir():
        raise FileNotFoundError(f"--out {out}: holds no results; name the --out folder of an earlier run")
    results = read_results(out, guidance.ALL, guidance.OWN)
    write_text(out / "guidance.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_text(out / "guidance.md", guidance.render(results))
    click.echo(f"wrote {out / 'guidance.json'} and {out / 'guidance.md'}")


if __name__ == "__main__":
    main()

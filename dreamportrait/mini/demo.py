"""The whole method in minutes: trains both stages on the miniature world, and shows what came of it.

\b
    make demo
    python -m dreamportrait.mini.demo --set data.count=1000 --set run.name=other

train.py trains as the configuration says; the pretrained generator and that at the end of each stage are measured as
`dreamportrait evaluate` does, and drawn side by side. The run's folder then has demo.md, demo.json and demo.png. A
demo that was stopped is continued by giving the same command again.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

from dreamportrait.core.errors import one_message
from dreamportrait.core.settings import ConfigError
from dreamportrait.metrics import evaluation, report
from dreamportrait.mini.demo_report import MARKDOWN, SHEET, draw, table, write
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.run import plan
from dreamportrait.systems.dreamportrait.subject import load_subject
from dreamportrait.training.checkpoints import name_of
from dreamportrait.training.run_folder import CHECKPOINTS, RESULT
from dreamportrait.training.trainer import count_processes

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "dreamportrait"
CONFIG, LONGER, TRAIN = CONFIGS / "mini.yaml", CONFIGS / "mini_long.yaml", ROOT / "train.py"
# Freed memory is kept for reuse, in place of being handed back to the system and asked for again.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"}
# Of one core, for what is said at the start: an image of training, a sample that is measured. 16 640 images and 1500
# samples took 13.0 minutes on two cores, 11.5 of them for training.
SECONDS_PER_IMAGE, SECONDS_PER_SAMPLE = 0.083, 0.12


class Column(NamedTuple):
    """Of the table and the sheet: a generator."""

    name: str
    source: Path  # as load_subject takes it
    images: int  # of training


@click.command(help=__doc__)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=CONFIG,
    help="Default: configs/dreamportrait/mini.yaml.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting, as for train.py.")
def main(path: Path, changes: tuple[str, ...]) -> None:
    started = time.monotonic()
    with one_message():
        if not TRAIN.is_file():
            raise FileNotFoundError(f"{TRAIN} is not there: the demo needs the whole repository, not only the package")
        changes = (f"trainer.devices={min(2, count_cores())}", *changes)
        made = plan(path, changes, resume="auto", look_only=True)
        if made.problems:
            raise ConfigError(str(path), made.problems)
        config = made.config
        click.echo(announcement(config, path, done=images_of(made.checkpoint)))
        with TemporaryDirectory() as scratch:
            before, *later = columns(config, Path(scratch))
            build.save_untrained(config, before.source)
            found = {before.name: measured(before, config)}  # what cannot be measured is known before the training
            train(config, path, changes)
            found |= {column.name: measured(column, config) for column in later}
            sheet = draw({column.name: column.source for column in (before, *later)}, config.run.offline)
        write(config.folder, found, sheet)
    click.echo(f"\n{table(found)}\n\n{farewell(config, (time.monotonic() - started) / 60)}")


def columns(config: Config, scratch: Path) -> list[Column]:
    """Before the training, and at the end of each stage."""
    found = [Column("before", scratch / "before", 0)]
    for i, end in enumerate(config.stage_ends()):
        source = config.folder / CHECKPOINTS / name_of(end)
        found.append(Column(f"after stage {i + 1} ({config.stages[i].name})", source, end))
    return found


def images_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.stem.rpartition("-")[2])


# What is measured.


def measured(column: Column, config: Config) -> dict[str, Any]:
    """The report of `dreamportrait evaluate` on what the configuration's `measure` says."""
    click.echo(f"measuring {column.name}: {config.measure.count} samples")
    m = config.measure
    with TemporaryDirectory() as scratch:
        request = evaluation.Request(
            checkpoint=str(column.source),
            dataset=build.measured(config),
            out=Path(scratch) / "report",
            count=m.count,
            extractor=m.extractor,
            clip=m.clip,
            protocol={"num_candidates": m.num_candidates},
            offline=config.run.offline,
        )
        evaluation.run(request, load_subject)
        found: dict[str, Any] = json.loads((request.out / report.JSON).read_text(encoding="utf-8"))
    if not column.images:  # its folder is gone when the report is read
        found["checkpoint"] |= {"source": config.model.pretrained, "checkpoint": None, "images": 0}
    return found


# Training.


def train(config: Config, path: Path, changes: tuple[str, ...]) -> None:
    """In a process of its own, or in several that share the cores."""
    settings = [word for change in changes for word in ("--set", change)]
    threads = {"OMP_NUM_THREADS": str(max(1, count_cores() // count_processes(config)))}
    command = [sys.executable, str(TRAIN), "--config", str(path), *settings]
    with ended_with_us(subprocess.Popen(command, env=ALLOCATOR | threads | dict(os.environ))) as process:
        code = process.wait()
    if code:
        raise click.ClickException(
            f"training ended with exit code {code}, for the reason above; what it had saved is in {config.folder}, "
            "and the same command continues from there"
        )


@contextmanager
def ended_with_us(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """No training goes on alone when this process is told to end."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            process.wait()


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is said.


def announcement(config: Config, path: Path, done: int) -> str:
    steps = [f"measure {config.model.pretrained}, which knows faces but no words"]
    for stage in config.stages:
        guided = f", guided by {config.guidance.source}" if stage.guidance and config.guidance.kind == "sds" else ""
        steps.append(f"train stage {stage.name}: {stage.images} images{guided}")
    steps.append("measure what came of it, and draw portraits of unseen prompts")
    lines = [f"{path} -> {config.folder}", *(f"  {i + 1}. {step}" for i, step in enumerate(steps))]
    if done:
        lines.append(f"{done} of {config.total_images} images were trained before.")
    samples = config.measure.count * (len(config.stages) + 1)
    seconds = (config.total_images - done) * SECONDS_PER_IMAGE + samples * SECONDS_PER_SAMPLE
    minutes = max(1, round(seconds / 60 / min(2, count_cores())))
    lines.append(f"About {minutes} min. It may be stopped: the same command continues it.\n")
    return "\n".join(lines)


def farewell(config: Config, minutes: float) -> str:
    python, folder = shown(Path(sys.executable)), config.folder
    own = ["-m", "dreamportrait", "sample", "an old man with a red beard", "--out", "portrait.png", "--model"]
    lines = [
        f"{minutes:.1f} min. Portraits: {folder / SHEET}. The table: {folder / MARKDOWN}.",
        f"From your own words: {shlex.join([python, *own, str(folder / RESULT)])}",
        f"A longer run:        {shlex.join([python, shown(TRAIN), '--config', shown(LONGER)])}",
    ]
    return "\n".join(lines)


def shown(path: Path) -> str:
    """As short as can be typed here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()

"""Show portraits of the shipped model, then train one like it on the miniature world in minutes and measure it.

\b
    make demo
    python -m dreamportrait.mini.demo --set data.count=1000 --set run.name=other

The demo draws portraits with the shipped model first. It then measures how fast this machine is, says how long the rest
will take, and runs train.py with the configuration. It measures the pretrained generator and the generator at the end
of each stage like `dreamportrait evaluate`, and draws their portraits side by side. It writes demo.md, demo.json and
demo.png into the run's folder. To continue a stopped demo, give the same command again.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dreamportrait.core.errors import one_message
from dreamportrait.core.signals import Interrupted, Signals
from dreamportrait.metrics import report

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.config import Config

# The functions import what takes seconds to load, so that --help appears at once.

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "dreamportrait"
CONFIG, LONGER, TRAIN = CONFIGS / "mini_speak.yaml", CONFIGS / "mini_long.yaml", ROOT / "train.py"
# glibc settings: keep freed memory for reuse instead of returning it to the system and requesting it again.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"}
# Seconds per unit of work on the machine where the demo was timed, with two cores, and the seconds that this machine
# needed for the work of pace(). On another machine, the times are scaled by its own seconds for that work.
SECONDS = {
    "face": 0.025,  # rendered by the generator
    "picture": 0.001,  # of the data set, inverted
    "caption": 0.0008,
    "answer": 0.0001,  # of the prior, per step of its flow
    "inverting": 0.15,  # step of the network from pictures to w; estimated from a busy machine
    "step": 0.055,  # of the other two trainings of the prior
    "image": 0.042,  # trained adversarially
    "sample": 0.14,  # measured
}
PACE = 1.1
PATIENCE = 120  # seconds in which a training finishes its step and writes a checkpoint
# Measured in 10 minutes with one thread of a core with AVX-512; another program kept the other core busy.
EXPECTED = "Expected: R-Precision 90 %, attributes said and shown 86 %, all that was said 34 %, FID(mini-clip) 0.021."


class Column(NamedTuple):
    """One generator: a column of the table and of the sheet."""

    name: str
    source: Path  # an argument of load_subject
    images: int  # trained so far


@click.command(help=__doc__)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=CONFIG,
    help="Default: configs/dreamportrait/mini_speak.yaml.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting, as for train.py.")
def main(path: Path, changes: tuple[str, ...]) -> None:
    try:
        with one_message(), Signals():
            run_demo(path, changes)
    except Interrupted as stopped:
        click.echo(stopped.message, err=True)
        raise SystemExit(stopped.code) from None


def run_demo(path: Path, changes: tuple[str, ...]) -> None:
    """Draw, train, measure and report."""
    started = time.monotonic()
    if not TRAIN.is_file():
        raise FileNotFoundError(f"{TRAIN} is not there: the demo needs the whole repository, not only the package")
    from dreamportrait.core.settings import ConfigError
    from dreamportrait.mini.demo_report import draw, table, write
    from dreamportrait.systems.dreamportrait import build
    from dreamportrait.systems.dreamportrait.run import plan

    changes = (f"trainer.devices={devices(path, changes)}", *changes)
    made = plan(path, changes, resume="auto", look_only=True)
    if made.problems:
        raise ConfigError(str(path), made.problems)
    config = made.config
    click.echo(announcement(config, path, images_of(made.checkpoint), show_shipped(config) / PACE))
    with TemporaryDirectory() as scratch:
        before, *later = columns(config, Path(scratch))
        build.save_untrained(config, before.source)
        found = {before.name: measured(before, config)}  # shows errors in measuring before the training
        train(config, path, changes)
        found |= {column.name: measured(column, config) for column in later}
        sheet = draw({column.name: column.source for column in (before, *later)}, config.run.offline)
    write(config.folder, found, sheet)
    click.echo(f"\n{table(found)}\n\n{farewell(config, (time.monotonic() - started) / 60)}")


def show_shipped(config: "Config") -> float:
    """Draw portraits of the shipped model beside the run's folder. Return the seconds that drawing them took."""
    from dreamportrait.export.sheets import save_picture
    from dreamportrait.mini.demo_report import draw

    path = config.folder.with_name(f"{config.run.name}-shipped.png")
    started = time.monotonic()
    sheet = draw({"mini, as shipped": Path("mini")}, config.run.offline)
    seconds = time.monotonic() - started
    save_picture(sheet, path, overwrite=True)
    click.echo(f"portraits of the shipped model, each in one forward pass: {path}\n")
    return seconds


def columns(config: "Config", scratch: Path) -> list[Column]:
    """Return the generators to compare: before the training and at the end of each stage."""
    from dreamportrait.systems.dreamportrait.prior import FOLDER as PRIOR
    from dreamportrait.training.checkpoints import name_of
    from dreamportrait.training.run_folder import CHECKPOINTS, RESULT

    found = [Column("before", scratch / "before", 0)]
    for i, (stage, end) in enumerate(zip(config.stages, config.stage_ends(), strict=True)):
        place = config.folder / PRIOR / RESULT if stage.prior else config.folder / CHECKPOINTS / name_of(end)
        found.append(Column(f"after stage {i + 1} ({stage.name})", place, end))
    return found


def images_of(checkpoint: Path | None) -> int:
    """Return the number of images that the checkpoint was trained on."""
    return 0 if checkpoint is None else int(checkpoint.stem.rpartition("-")[2])


# Measuring.


def measured(column: Column, config: "Config") -> dict[str, Any]:
    """Measure a generator with the settings `measure` of the configuration and return the report of `evaluate`."""
    from dreamportrait.metrics import evaluation
    from dreamportrait.systems.dreamportrait import build
    from dreamportrait.systems.dreamportrait.subject import load_subject

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
    if column.name == "before":  # its folder is temporary, so the report names the pretrained model instead
        found["checkpoint"] |= {"source": config.model.pretrained, "checkpoint": None, "images": 0}
    return found


# Training.


def train(config: "Config", path: Path, changes: tuple[str, ...]) -> None:
    """Train in a separate process, or in several that share the cores."""
    from dreamportrait.training.devices import count_processes

    settings = [word for change in changes for word in ("--set", change)]
    threads = {"OMP_NUM_THREADS": str(max(1, count_cores() // count_processes(config)))}
    command = [sys.executable, str(TRAIN), "--config", str(path), *settings]
    code = run_until_signal(command, ALLOCATOR | threads | dict(os.environ))
    if code:
        raise click.ClickException(
            f"training ended with exit code {code}, for the reason printed above. Its checkpoints are in "
            f"{config.folder}; the same command continues from there"
        )


def run_until_signal(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its exit code.

    A signal that asks this process to end goes to the command as SIGTERM, and this process ends after it. Raise
    Interrupted then.
    """
    with Signals(collecting=True) as signals, subprocess.Popen(command, env=environment) as process:
        told = None  # when the process was asked to end
        while process.poll() is None:
            if signals.received and told is None:
                process.terminate()
                told = time.monotonic()
            if told is not None and time.monotonic() > told + PATIENCE:
                process.kill()
            time.sleep(0.1)
    if signals.received:
        raise Interrupted(signals.received, "the training has ended too; the same command continues it")
    return process.returncode


def devices(path: Path, changes: tuple[str, ...]) -> int:
    """Return the number of processes: two that share the cores, or one if no stage trains on images."""
    from dreamportrait.core import settings
    from dreamportrait.systems.dreamportrait.config import Config

    config, _ = settings.read(Config, path, changes)  # its problems are reported later
    return min(2, count_cores()) if config is not None and config.total_images else 1


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Messages.


def announcement(config: "Config", path: Path, done: int, slowness: float) -> str:
    """Describe the steps of the demo and estimate their time. slowness: of this machine, relative to the timed one."""
    steps = [f"measure {config.model.pretrained}, a generator without text conditioning"]
    for stage in config.stages:
        guided = f", guided by {config.guidance.source}" if stage.guidance and config.guidance.kind == "sds" else ""
        if stage.prior is None:
            steps.append(f"train stage {stage.name}: {stage.images} images{guided}")
        else:
            steps.append(f"train stage {stage.name}: a text prior from {stage.prior.faces} pictures of the generator")
    steps.append("measure the result, and draw portraits of unseen prompts")
    lines = [f"{path} -> {config.folder}", *(f"  {i + 1}. {step}" for i, step in enumerate(steps))]
    if done:
        lines.append(f"{done} of {config.total_images} images were trained before.")
    if path.resolve() == CONFIG:
        lines.append(EXPECTED)
    minutes = max(1, round(slowness * seconds_of(config, done) / 60))
    lines.append(f"About {minutes} min on this machine. You can stop it: the same command continues it.\n")
    return "\n".join(lines)


def seconds_of(config: "Config", done: int) -> float:
    """Estimate the seconds that the rest of the demo takes on the machine where it was timed."""
    from dreamportrait.data.dataset import MINIWORLD_FACES

    work = {"image": config.total_images - done, "sample": config.measure.count * (len(config.stages) + 1)}
    if (p := config.prior) is not None and not done:
        pictures = min(p.pictures or sys.maxsize, config.data.count or MINIWORLD_FACES)
        work |= {"face": p.faces, "picture": pictures, "caption": pictures * p.captions}
        work |= {"answer": p.answers * p.steps, "step": p.flow_steps + p.one_pass_steps}
        work |= {"inverting": p.inverter_steps + p.content_steps}  # the reader has the inverter's size
        work["step"] += 2 * p.content_steps * (p.stay > 0)
    return sum(count * SECONDS[name] for name, count in work.items())


def farewell(config: "Config", minutes: float) -> str:
    from dreamportrait.mini.demo_report import MARKDOWN, SHEET
    from dreamportrait.training.run_folder import RESULT

    python, folder = shown(Path(sys.executable)), config.folder
    own = ["-m", "dreamportrait", "sample", "an old man with a red beard", "--out", "portrait.png", "--model"]
    lines = [
        f"{minutes:.1f} min. Portraits: {folder / SHEET}. The table: {folder / MARKDOWN}.",
        f"Your own prompt: {shlex.join([python, *own, str(folder / RESULT)])}",
        f"A longer run:    {shlex.join([python, shown(TRAIN), '--config', shown(LONGER)])}",
    ]
    return "\n".join(lines)


def shown(path: Path) -> str:
    """Return the path relative to the current folder if it lies there, else unchanged."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()

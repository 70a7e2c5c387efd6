"""The command `train`. The script train.py in the root of the repository is the same command."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait.core.errors import brief, one_message

if TYPE_CHECKING:
    from dreamportrait.core.signals import Signals

SYSTEMS = ("dreamportrait", "freestyle")


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="A YAML file; see configs/.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting: data.batch=16.")
@click.option(
    "--dry-run", is_flag=True, help="Check the configuration and show the run; load, download and write nothing."
)
@click.option("--resume", default="auto", show_default=True, help="auto, none, a checkpoint, or the folder of a run.")
@click.option("--offline", is_flag=True, help="Never use the network; the same as --set run.offline=true.")
def train(path: Path, overrides: tuple[str, ...], dry_run: bool, resume: str, offline: bool) -> None:
    """Train a text-to-3D generator, or the network of free-style portraits, with the settings of a configuration file.

    \b
        dreamportrait train --config configs/dreamportrait/mini.yaml
        torchrun --nproc_per_node=8 train.py --config configs/dreamportrait/celebatext_hq.yaml --set data.workers=8
        dreamportrait train --config configs/freestyle/i2t_mini.yaml

    If a run was stopped, the same command continues it. SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1 let it finish its
    step and write a checkpoint. Ctrl-\\ ends it at once.
    """
    from dreamportrait.core.launch import is_child, is_first_process
    from dreamportrait.core.signals import Interrupted, Signals

    child = is_child()  # then only the parent's exit code counts, and the parent would kill itself for another one
    try:
        with one_message(), Signals(collecting=child) as signals:
            changes = (*overrides, "run.offline=true") if offline else overrides
            _run(path, changes, dry_run, resume, signals)
    except Interrupted as stopped:
        if is_first_process():
            click.echo(stopped.message, err=True)
        raise SystemExit(0 if child else stopped.code) from None


def _run(path: Path, changes: tuple[str, ...], dry_run: bool, resume: str, signals: "Signals") -> None:
    training = _training(path)
    from dreamportrait.core.network import join_seconds
    from dreamportrait.core.settings import ConfigError
    from dreamportrait.training.meeting import Together, join

    together = Together() if dry_run else join()
    with together.checked(join_seconds()) as facts:
        plan = training.plan(path, changes, resume, look_only=dry_run)
        if dry_run:
            click.echo(training.describe(plan))
        if plan.problems:
            raise ConfigError(str(path), plan.problems)
        facts |= plan.facts()
    if dry_run:
        return
    from dreamportrait.core.precision import exact_float32

    exact_float32()
    with together.checked(plan.config.trainer.patience_seconds):
        run = training.prepare(plan, sys.argv, together, signals)
    is_first = run.trainer.is_global_zero
    if is_first:
        click.echo(f"training in {plan.config.folder}, from {plan.checkpoint or 'the beginning'}")
    result = run.train(signals)
    if is_first:
        click.echo(f"done: the result is in {result}")


def _training(path: Path) -> Any:
    """Return the module of the system that a configuration is for: its plan, describe and prepare."""
    from dreamportrait.core.imports import only_imports
    from dreamportrait.core.settings import read_yaml

    system = read_yaml(path).get("system", SYSTEMS[0])
    with only_imports():
        if system == "dreamportrait":
            from dreamportrait.systems.dreamportrait import run as portraits

            return portraits
        if system == "freestyle":
            from dreamportrait.systems.freestyle import run as freestyle

            return freestyle
    raise ValueError(f"{path}: system is {brief(system)}; must be {' or '.join(SYSTEMS)}")

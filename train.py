"""Trains a text-to-3D generator as a configuration says.

\b
    python train.py --config configs/mini.yaml
    torchrun --nproc_per_node=8 train.py --config configs/celebatext_hq.yaml --set data.workers=8

A run that was stopped is continued by giving the same command again.
"""

import sys
from pathlib import Path

import click

from dreamportrait.cli import one_message


@click.command(help=__doc__)
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="A YAML file; see configs/.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting, as in data.batch=16.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything and show what would be trained; load, fetch, write nothing."
)
@click.option("--resume", default="auto", show_default=True, help="auto, none, a checkpoint, or the folder of a run.")
@click.option("--offline", is_flag=True, help="Fetch nothing; the same as --set run.offline=true.")
def main(path: Path, overrides: tuple[str, ...], dry_run: bool, resume: str, offline: bool) -> None:
    with one_message():
        from dreamportrait.config import ConfigError
        from dreamportrait.training import start

        changes = (*overrides, "run.offline=true") if offline else overrides
        made = start.plan(path, changes, resume, look_only=dry_run)
        if dry_run:
            click.echo(start.describe(made))
        if made.problems:
            raise ConfigError(str(path), made.problems)
        if dry_run:
            return
        run = start.prepare(made, sys.argv)
    say = click.echo if run.trainer.is_global_zero else str
    say(f"training in {made.config.folder}, from {made.checkpoint or 'the beginning'}")
    say(f"done: the result is in {run.train()}")


if __name__ == "__main__":
    main()

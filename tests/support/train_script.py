"""Starts train.py from its command line, on toy networks."""

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from toy_run import arguments

import train
from dreamportrait.training.states import load_state

QUIET = "samples.prompts=[]"


def run(sources: Path, runs: Path, *changes: str, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(train.main, [*arguments(sources, runs, *changes), *options])


def trained(sources: Path, runs: Path, *changes: str, options: tuple[str, ...] = ()) -> Path:
    """Run train.py, check that it succeeds, and return the folder of the run."""
    result = run(sources, runs, *changes, options=options)
    if result.exception is not None:
        raise AssertionError(result.output) from result.exception
    return runs / "test"


def checkpoint(folder: Path, images: int = 24) -> dict[str, Any]:
    state = load_state(folder / "checkpoints" / f"images-{images:09d}.ckpt")
    assert state is not None
    return state

"""The folder of a run: its files, a lock, and a record of every start.

    FOLDER/config.yaml          the configuration of the newest start, with every default
    FOLDER/starts/000/          config.yaml, environment.json and, if files were not committed, uncommitted.diff
    FOLDER/checkpoints/         images-N.ckpt
    FOLDER/log.csv, samples/    losses and sheets of pictures
    FOLDER/portrait/            the result, at the end
    FOLDER/run.lock             locked while a training writes to the folder

resume.py decides whether a run is continued.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dreamportrait.core.files import write_text
from dreamportrait.core.locks import take

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from dreamportrait.core.config import RunConfig

CONFIG, STARTS, CHECKPOINTS, RESULT, LOCK = "config.yaml", "starts", "checkpoints", "portrait", "run.lock"


def claim(folder: Path) -> "BaseFileLock":
    """Lock the folder of a run. Raise ValueError if another process has it."""
    problem = f"{folder} is in use: another training writes to it; end that one, or choose another run.name"
    lock = take(folder / LOCK, ValueError(problem))
    for place in (folder, folder / CHECKPOINTS):
        for left in place.glob("*.unfinished"):  # of a process that was killed while it saved
            left.unlink()
    return lock


def record_start(config: "RunConfig", command: list[str], checkpoint: Path | None) -> Path:
    """Write configuration, command and environment of this start to a folder of its own, and return it."""
    from dreamportrait.core.machine import environment, git_state

    folder = config.folder
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    number = len(list((folder / STARTS).glob("*")))
    place = folder / STARTS / f"{number:03d}"
    place.mkdir(parents=True)
    git = git_state()
    if difference := git.pop("diff", ""):
        write_text(place / "uncommitted.diff", difference)
    about = {"command": command, "checkpoint": checkpoint and str(checkpoint), "git": git} | environment()
    write_text(place / "environment.json", json.dumps(about, indent=2) + "\n")
    for target in (place / CONFIG, folder / CONFIG):
        write_text(target, config.to_yaml())
    return place

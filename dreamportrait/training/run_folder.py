"""The folder of a run: its files, and a record of every start.

    FOLDER/config.yaml          the configuration of the newest start, with every default
    FOLDER/starts/000/          config.yaml, environment.json and, if files were not committed, uncommitted.diff
    FOLDER/checkpoints/         images-N.ckpt
    FOLDER/log.csv, samples/    losses and sheets of pictures
    FOLDER/portrait/            the result, at the end

resume.py decides whether a run is continued.
"""

import json
from pathlib import Path

from dreamportrait.core.config import RunConfig
from dreamportrait.core.files import write_text
from dreamportrait.core.machine import environment, git_state

CONFIG, STARTS, CHECKPOINTS, RESULT = "config.yaml", "starts", "checkpoints", "portrait"


def record_start(config: RunConfig, command: list[str], checkpoint: Path | None) -> Path:
    """Write configuration, command and environment of this start to a folder of its own, and return it."""
    folder = config.folder
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    number = len(list((folder / STARTS).glob("*")))
    place = folder / STARTS / f"{number:03d}"
    place.mkdir(parents=True)
    git = git_state()
    if difference := git.pop("diff", ""):
        (place / "uncommitted.diff").write_text(difference, encoding="utf-8")
    about = {"command": command, "checkpoint": checkpoint and str(checkpoint), "git": git} | environment()
    (place / "environment.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for target in (place / CONFIG, folder / CONFIG):
        write_text(target, config.to_yaml())
    return place

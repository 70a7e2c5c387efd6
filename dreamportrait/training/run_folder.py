"""The folder of a run: whether it may be used, what is continued, and a record of every start.

    FOLDER/config.yaml          the newest start's configuration, with every default written out
    FOLDER/starts/000/          config.yaml, environment.json and, where something was not committed, uncommitted.diff
    FOLDER/checkpoints/         images-N.ckpt
    FOLDER/log.csv, samples/    lines and sheets, as training goes
    FOLDER/portrait/            the result, when it is done

A run is continued by giving the same command again. Only what does not change its result may differ then.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dreamportrait import settings
from dreamportrait.config import Config, Problem, read_config
from dreamportrait.training.callbacks.checkpoints import newest_checkpoint, saved_checkpoints

CONFIG, STARTS, CHECKPOINTS, RESULT = "config.yaml", "starts", "checkpoints", "portrait"
# Settings that may differ from one start to the next: where and how fast, but not what is computed.
FREE = (
    *("run.folder", "run.offline", "data.path", "data.captions", "data.workers", "text.store", "guidance.checkpoint"),
    *("trainer", "logging", "samples", "measure"),
)
# What decides the shapes of weights, or what they mean.
ARCHITECTURE = ("model.pretrained", "model.conditioning", "text.clip", "loss.text_aware_discriminator")
_SHOWN_VARIABLES = (
    "EG3D_OPS",
    "DREAMPORTRAIT",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "WORLD_SIZE",
    "SLURM_JOB_ID",
)
_MAX_DIFF = 2**20


def find_checkpoint(config: Config, resume: str, look_only: bool = False) -> tuple[Path | None, list[Problem]]:
    """What to continue from, and what speaks against it. resume: "auto", "none", a checkpoint or a run's folder.

    look_only: damaged checkpoints are neither looked for nor set aside.
    """
    newest = _last_saved if look_only else newest_checkpoint
    folder = config.folder
    if resume not in ("auto", "none"):
        return _named_checkpoint(config, Path(resume), newest)
    if not is_first_process():  # the first one judges the folder, and may be making it just now
        return newest(folder / CHECKPOINTS) if resume == "auto" else None, []
    if _is_free(folder):
        return None, []
    if not (folder / CONFIG).is_file():
        return None, [Problem(("run.name",), f"{folder} is no run's folder and is left alone; choose another name")]
    if resume == "none":
        remedy = "continue it with --resume auto, or choose another name"
        return None, [Problem(("run.name",), f"{folder} holds a run, which is never overwritten; {remedy}")]
    remedy = "set it back, or choose another run.name, with --resume CHECKPOINT to begin from one of that run"
    return newest(folder / CHECKPOINTS), _differences(config, folder / CONFIG, _may_differ, remedy)


def _last_saved(folder: Path) -> Path | None:
    return next(reversed(saved_checkpoints(folder)), None)


def _named_checkpoint(
    config: Config, given: Path, newest: Callable[[Path], Path | None]
) -> tuple[Path | None, list[Problem]]:
    path = newest(given / CHECKPOINTS) if given.is_dir() else given
    if path is None or not path.is_file():
        return None, [Problem((), f"--resume {given}: no checkpoint there; name a checkpoint or a run's folder")]
    there = path.resolve().parent.parent
    problems = []
    if there != config.folder.resolve() and is_first_process() and not _is_free(config.folder):
        text = f"{config.folder} is not empty, and --resume names another run's checkpoint; choose a new name"
        problems.append(Problem(("run.name",), text))
    if (there / CONFIG).is_file():
        remedy = "the checkpoint is of another architecture: set it back, or train anew"
        problems += _differences(config, there / CONFIG, lambda key, *_: not _is_under(key, ARCHITECTURE), remedy)
    return path, problems


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


Allowed = Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]  # key, values before and now


def _differences(config: Config, path: Path, allowed: Allowed, remedy: str) -> list[Problem]:
    """To the run that is to be continued."""
    before, problems = read_config(path)
    if before is None or problems:
        reasons = "; ".join(map(str, problems))
        text = f"{path} is not of this version of dreamportrait ({reasons}); choose another name"
        return [Problem(("run.name",), text)]
    old, new = (_flat(each.model_dump(mode="json")) for each in (before, config))
    keys = [key for key in old | new if old.get(key) != new.get(key) and not allowed(key, old, new)]
    return [
        Problem((key,), f"was {old.get(key)!r} when {path.parent} was begun, now {new.get(key)!r}; {remedy}")
        for key in keys
    ]


def computed(config: Config) -> dict[str, Any]:
    """Every setting that decides what is computed, by its dotted name."""
    values = _flat(config.model_dump(mode="json"))
    return {key: value for key, value in values.items() if not _is_under(key, (*FREE, "run.name"))}


def _flat(values: Any, place: tuple[Any, ...] = ()) -> dict[str, Any]:
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(values, Mapping):
        items = iter(values.items())
    elif isinstance(values, list) and values and isinstance(values[0], Mapping):
        items = enumerate(values)
    if items is None:
        return {settings.dotted(place): values}
    return {key: value for part, inner in items for key, value in _flat(inner, (*place, part)).items()}


def _may_differ(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Also the length of the last stage, if it becomes longer: what has been done stays the same."""
    if _is_under(key, FREE):
        return True
    count = len({name.split(".")[1] for name in old if name.startswith("stages.")})
    return key == f"stages.{count - 1}.images" and new.get(key, 0) >= old[key]


def _is_under(key: str, keys: Sequence[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)


# Records.


def is_first_process() -> bool:
    """Of all machines. Known before the processes know of each other: torchrun, SLURM and Lightning set these."""
    names = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, 0)) == 0 for name in names)


def record_start(config: Config, command: list[str], checkpoint: Path | None) -> Path:
    """Writes what this start is made of. -> its own folder"""
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
        unfinished = target.with_name(f".{CONFIG}.unfinished")
        unfinished.write_text(config.to_yaml(), encoding="utf-8")
        os.replace(unfinished, target)
    return place


def environment() -> dict[str, Any]:
    """What a result may depend on besides the configuration."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": platform.node(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SHOWN_VARIABLES)},
        "packages": dict(sorted((each.name, each.version) for each in metadata.distributions() if each.name)),
    }


def git_state() -> dict[str, Any]:
    """Of the repository that the code is in; empty where it is in none."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != root:  # installed inside of another one
            return {}
        commit, branch = git("rev-parse", "HEAD").strip(), git("rev-parse", "--abbrev-ref", "HEAD").strip()
        changed = git("status", "--porcelain").splitlines()
        difference = git("diff", "HEAD", "--", "*.py", "*.yaml", "*.toml", "*.cpp", "*.cu", "*.h")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "branch": branch, "changed": changed, "diff": difference[:_MAX_DIFF]}

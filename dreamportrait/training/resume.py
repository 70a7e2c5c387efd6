"""Resume: which checkpoint a run continues from, and which settings may differ from the previous start.

The command that started a run also continues it. Settings that change the result must stay the same.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dreamportrait.core import settings
from dreamportrait.core.config import RunConfig
from dreamportrait.core.errors import brief
from dreamportrait.core.launch import is_first_process
from dreamportrait.core.settings import Problem
from dreamportrait.training.checkpoints import damage, newest_checkpoint, saved_checkpoints
from dreamportrait.training.run_folder import CHECKPOINTS, CONFIG, LOCK, STARTS


def find_checkpoint(config: RunConfig, resume: str, look_only: bool = False) -> tuple[Path | None, list[Problem]]:
    """Return the checkpoint to resume from (None = start from the beginning) and the problems that prevent resuming.

    resume: "auto", "none", a checkpoint, or the folder of a run.
    look_only: do not check files for damage, and rename none.
    """
    newest = _last_saved if look_only else partial(newest_checkpoint, set_aside=is_first_process())
    folder = config.folder
    if resume not in ("auto", "none"):
        return _named_checkpoint(config, Path(resume), newest)
    if not is_first_process():  # only the first process checks the folder, which it may be creating right now
        return newest(folder / CHECKPOINTS) if resume == "auto" else None, []
    if _is_free(folder):
        return None, []
    if not (folder / CONFIG).is_file():
        return None, [Problem(("run.name",), f"{folder} is no run's folder and is left alone; choose another name")]
    if resume == "none":
        remedy = "continue it with --resume auto, or choose another name"
        return None, [Problem(("run.name",), f"{folder} holds a run, which is never overwritten; {remedy}")]
    remedy = "set it back, or choose another run.name, with --resume CHECKPOINT to begin from that run's checkpoint"
    return newest(folder / CHECKPOINTS), _differences(
        config, folder / CONFIG, partial(_may_differ, config.FREE), remedy
    )


def _last_saved(folder: Path) -> Path | None:
    return next(reversed(saved_checkpoints(folder)), None)


def _named_checkpoint(
    config: RunConfig, given: Path, newest: Callable[[Path], Path | None]
) -> tuple[Path | None, list[Problem]]:
    path = newest(given / CHECKPOINTS) if given.is_dir() else given
    if path is None or not path.is_file():
        return None, [Problem((), f"--resume {given}: no checkpoint there; name a checkpoint or a run's folder")]
    if (problem := damage(path)) is not None:
        return None, [Problem((), f"--resume {given}: {path} {problem}; name another checkpoint, or a run's folder")]
    there = path.resolve().parent.parent
    problems = []
    elsewhere = there != config.folder.resolve()
    if elsewhere and is_first_process() and not (_is_free(config.folder) or _began_from(path, config.folder)):
        text = f"{config.folder} is not empty, and --resume names another run's checkpoint; choose a new name"
        problems.append(Problem(("run.name",), text))
    if (there / CONFIG).is_file():
        remedy = "the checkpoint is of another architecture: set it back, or train anew"
        problems += _differences(
            config, there / CONFIG, lambda key, *_: not _is_under(key, config.ARCHITECTURE), remedy
        )
    return path, problems


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and all(path.name == LOCK for path in folder.iterdir()))


def _began_from(checkpoint: Path, folder: Path) -> bool:
    """Return whether a run in `folder` began from this checkpoint and was stopped before it saved one of its own."""
    started = sorted((folder / STARTS).glob("*/environment.json"))
    if not started or saved_checkpoints(folder):
        return False
    return json.loads(started[-1].read_text(encoding="utf-8")).get("checkpoint") == str(checkpoint)


Allowed = Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]  # arguments: key, old values, new values


def _differences(config: RunConfig, path: Path, allowed: Allowed, remedy: str) -> list[Problem]:
    """Return a problem for each setting that differs from the saved configuration and is not allowed to."""
    before, problems = settings.read(type(config), path)
    if before is None or problems:
        reasons = "; ".join(map(str, problems))
        text = f"{path} is not of this version of dreamportrait ({reasons}); choose another name"
        return [Problem(("run.name",), text)]
    old, new = (flat(each.model_dump(mode="json")) for each in (before, config))
    keys = [key for key in old | new if old.get(key) != new.get(key) and not allowed(key, old, new)]
    return [
        Problem((key,), f"was {brief(old.get(key))} when {path.parent} was begun, now {brief(new.get(key))}; {remedy}")
        for key in keys
    ]


def computed(config: RunConfig) -> dict[str, Any]:
    """Return every setting that affects the result, by its dotted name."""
    values = flat(config.model_dump(mode="json"))
    return {key: value for key, value in values.items() if not _is_under(key, (*config.FREE, "run.name"))}


def flat(values: Any, place: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return the settings of nested sections by their dotted names."""
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(values, Mapping):
        items = iter(values.items())
    elif isinstance(values, list) and values and isinstance(values[0], Mapping):
        items = enumerate(values)
    if items is None:
        return {settings.dotted(place): values}
    return {key: value for part, inner in items for key, value in flat(inner, (*place, part)).items()}


def _may_differ(free: Sequence[str], key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether a setting may differ: one of `free`, or a last stage that becomes longer."""
    if _is_under(key, free):
        return True
    count = len({name.split(".")[1] for name in old if name.startswith("stages.")})
    return key == f"stages.{count - 1}.images" and new.get(key, 0) >= old[key]


def _is_under(key: str, keys: Sequence[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)

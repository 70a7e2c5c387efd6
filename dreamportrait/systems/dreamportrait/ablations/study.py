"""The description of an ablation study, the checks before it starts, and its result files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dreamportrait.metrics.extractors import default_judge
from dreamportrait.metrics.scores import fitted
from dreamportrait.systems.dreamportrait.ablations.rows import ALL, CLIP, CLIP_WEIGHT_FOR, WHOLE, WORLDS, Row
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.run import plan
from dreamportrait.training.checkpoints import saved_checkpoints
from dreamportrait.training.resume import computed
from dreamportrait.training.run_folder import CHECKPOINTS


@dataclass(frozen=True)
class Study:
    """The rows and seeds to train and measure, and where."""

    root: Path  # the root of the repository, which holds train.py
    out: Path
    config: str  # the configuration of the whole method, as recorded in results
    path: Path  # the file that the configuration is read from
    world: str
    rows: tuple[Row, ...]
    seeds: int
    images: int | None  # of the last stage. None = as configured
    samples: int
    measured_on: str | None = None  # the data set. None = that of the world
    start: Path | None = None  # a checkpoint that every training begins from. None = the pretrained generator

    @property
    def dataset(self) -> str:
        return self.measured_on or WORLDS[self.world].dataset

    def jobs(self) -> list["Job"]:
        """Return all rows of the first seed, then all of the next, so that early results already compare all rows."""
        return [Job(row, seed) for seed in range(self.seeds) for row in self.rows if row.trained or seed == 0]


class Job(NamedTuple):
    """One training and measurement: a row with a seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row.name}-seed{self.seed}"


def choose(names: str | None, rows: tuple[Row, ...] = ALL) -> tuple[Row, ...]:
    """Return the rows of a comma-separated list of names, in the usual order. None = all rows."""
    if names is None:
        return rows
    known, given = [row.name for row in rows], [name.strip() for name in names.split(",")]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"--rows {names}: no row {unknown[0]!r}; must be some of {','.join(known)}")
    return tuple(row for row in rows if row.name in given)


def overrides(study: Study, job: Job) -> tuple[str, ...]:
    """Return the settings that train.py gets for a job, without the folder of the run."""
    return (*job.row.changes, *_length(study), f"run.seed={job.seed}")


def _length(study: Study) -> tuple[str, ...]:
    """Return the settings for the length of the last stage.

    The half-life of the running average is shortened with the stage. Otherwise the average of a short training would
    mostly consist of weights from its beginning.
    """
    if study.images is None:
        return ()
    config = load_config(study.path)
    average = max(1, round(config.optim.ema_images * study.images / config.stages[-1].images))
    return f"stages.{len(config.stages) - 1}.images={study.images}", f"optim.ema_images={average}"


def placed(study: Study, job: Job) -> tuple[str, ...]:
    """Return the settings that train.py gets for a job, with the folder of the run."""
    return (*overrides(study, job), f"run.folder={study.out / 'trainings'}", f"run.name={job.name}")


def resume(study: Study, job: Job) -> str:
    """Return what train.py continues from, as for its --resume."""
    begun = saved_checkpoints(study.out / "trainings" / job.name / CHECKPOINTS)
    return "auto" if begun or study.start is None else str(study.start)


def settings(study: Study, job: Job) -> dict[str, Any]:
    """Return everything except for the code that affects a result. Equal settings mean the same experiment."""
    chosen = computed(load_config(study.path, overrides(study, job)))
    if not job.row.trained:
        chosen = {name: chosen[name] for name in ("model.pretrained", "text.clip")}
    measured = {"samples": study.samples, "dataset": study.dataset}
    if study.start is not None:
        measured["start"] = str(study.start)
    found: dict[str, Any] = json.loads(json.dumps(chosen | measured))
    return found


def check(study: Study) -> None:
    """Raise ValueError if the study is inconsistent, cannot be trained, or would mix with results of another one."""
    fitted(study.samples)
    base = load_config(study.path)
    flat = computed(base)
    if wrong := [key for key, value in WHOLE.items() if flat[key] != value]:
        raise ValueError(
            f"{study.config}: {wrong[0]} is {flat[wrong[0]]!r}, and {WHOLE[wrong[0]]!r} in the whole method, of which "
            "every row changes one setting; set it back, or name another --config"
        )
    if CLIP in study.rows:
        _check_clip(study.config, base, study.dataset)
    for job in study.jobs():
        if (path := result_path(study.out, job)).exists():
            _check_same(path, settings(study, job))
        elif job.row.trained or study.start is None:
            made = plan(study.path, placed(study, job), resume(study, job), look_only=True)
            if made.problems:
                raise ValueError(f"row {job.row.name}, seed {job.seed}: {'; '.join(map(str, made.problems))}")


def _check_clip(config: str, base: Config, dataset: str) -> None:
    flat = computed(base)
    if wrong := [key for key, value in CLIP_WEIGHT_FOR.items() if flat[key] != value]:
        raise ValueError(
            f"{config}: {wrong[0]} is {flat[wrong[0]]!r}, and the weight of CLIP's loss in row clip was measured with "
            f"{CLIP_WEIGHT_FOR[wrong[0]]!r}; measure it with --clip-weight and put it into dreamportrait/systems/"
            "dreamportrait/ablations/rows.py, or leave that row out with --rows"
        )
    if base.text.clip == default_judge(dataset):
        raise ValueError(f"{config}: text.clip is {base.text.clip}, which also judges; the judge must not guide")


# Results.


KEYS = {"row", "seed", "world", "config", "settings", "seconds", "machine", "report"}


def result_path(out: Path, job: Job) -> Path:
    return out / "results" / f"{job.name}.json"


def _check_same(path: Path, wanted: dict[str, Any]) -> None:
    found = read_result(path)["settings"]
    different = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
    if different:
        named = ", ".join(f"{key} {found.get(key)!r}, now it is {wanted.get(key)!r}" for key in different)
        raise ValueError(f"{path} was made with {named}; set it back, or name another --out")


def read_result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not found.keys() >= KEYS or not isinstance(found["row"], str):
            raise ValueError("it lacks fields of a result")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of an ablation: {error}; delete it, or name another --out") from None
    assert isinstance(found, dict)
    return found


def read_results(out: Path, rows: tuple[Row, ...] = ALL, own: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return all results of a folder. Raise ValueError if they differ in a setting that no row changes.

    own: further settings that a row may have for itself.
    """
    paths = sorted((out / "results").glob("*.json"))
    found, names = [read_result(path) for path in paths], [row.name for row in rows]
    for path, result in zip(paths, found, strict=True):
        if result["row"] not in names:
            raise ValueError(f"{path} is not a result of an ablation: {result['row']!r} is no row; delete it")
    own = ["run.seed", *own, *(change.partition("=")[0] for row in rows for change in row.changes)]
    common: dict[str, tuple[Any, Path]] = {}
    for path, result in zip(paths, found, strict=True):
        for key, value in result["settings"].items():
            first, where = common.setdefault(key, (value, path))
            if key not in own and value != first:
                raise ValueError(f"{path} was made with {key} {value!r}, {where} with {first!r}; move one of them away")
    return found

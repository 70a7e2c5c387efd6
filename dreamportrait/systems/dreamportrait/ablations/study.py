"""The description of an ablation study, the checks before it starts, and its result files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dreamportrait.data.names import check_source, is_world
from dreamportrait.data.sources import open_pictures
from dreamportrait.metrics.extractors import check_extractor, default_extractor, default_judge
from dreamportrait.metrics.scores import fitted
from dreamportrait.systems.dreamportrait.ablations.rows import (
    ALL,
    CLIP,
    CLIP_WEIGHT_FOR,
    MINI,
    MINI_SITES,
    WHOLE,
    Row,
    rows_in,
)
from dreamportrait.systems.dreamportrait.build import network_configs
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
    dataset: str  # to measure on
    start: Path | None = None  # a checkpoint that every training begins from. None = the pretrained generator
    changes: tuple[str, ...] = ()  # settings of all rows
    judge: str | None = None  # the CLIP that judges. None = the default for the data set
    extractor: str | None = None  # of the distance. None = the default for the data set
    sites: tuple[int, ...] = MINI_SITES  # resolutions of the blocks that an adapter may follow
    also: str | None = None  # a second data set to measure on

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


def base_config(study: Study) -> Config:
    """Return the configuration of the whole method."""
    return load_config(study.path, study.changes)


def overrides(study: Study, job: Job) -> tuple[str, ...]:
    """Return the settings that train.py gets for a job, without the folder of the run."""
    return (*study.changes, *job.row.changes, *_length(study), f"run.seed={job.seed}")


def _length(study: Study) -> tuple[str, ...]:
    """Return the settings for the length of the last stage."""
    if study.images is None:
        return ()
    config = base_config(study)
    return f"stages.{len(config.stages) - 1}.images={study.images}", shortened(config, study.images)


def shortened(config: Config, images: int) -> str:
    """Return the setting of the running average for `images` images in the last stage.

    Its half-life is shortened with the stage. Otherwise the average of a short training would mostly consist of weights
    from its beginning.
    """
    average = max(1, round(config.optim.ema_images * images / config.stages[-1].images))
    return f"optim.ema_images={average}"


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
    given = {"start": study.start, "judge": study.judge, "extractor": study.extractor, "also": study.also}
    measured |= {name: str(value) for name, value in given.items() if value is not None}
    found: dict[str, Any] = json.loads(json.dumps(chosen | measured))
    return found


def check(study: Study) -> None:
    """Raise ValueError if the study is inconsistent, cannot be trained, or would mix with results of another one."""
    fitted(study.samples)
    check_extractor(study.extractor or default_extractor(study.dataset))
    for name in filter(None, (study.dataset, study.also)):
        check_source(name)
        if not is_world(name) and study.samples > (there := len(open_pictures(name))):
            raise ValueError(f"--samples {study.samples}: {name} has {there} pictures; measure at most as many")
    base = base_config(study)
    flat = computed(base)
    # Rows that begin from a checkpoint compare what follows it, also where its generator is frozen.
    changed = {change.partition("=")[0] for row in study.rows for change in row.changes}
    fixed = {key: value for key, value in WHOLE.items() if study.start is None or key in changed}
    if wrong := [key for key, value in fixed.items() if flat[key] != value]:
        raise ValueError(
            f"{study.config}: {wrong[0]} is {flat[wrong[0]]!r}, and {WHOLE[wrong[0]]!r} in the whole method, of which "
            "every row changes one setting; set it back, or name another --config"
        )
    if any(row.name == CLIP.name for row in study.rows):
        _check_clip(study, base)
    for job in study.jobs():
        if (path := result_path(study.out, job)).exists():
            _check_same(path, settings(study, job))
        elif job.row.trained or study.start is None:
            made = plan(study.path, placed(study, job), resume(study, job), look_only=True)
            if made.problems:
                raise ValueError(f"row {job.row.name}, seed {job.seed}: {'; '.join(map(str, made.problems))}")


def _check_clip(study: Study, base: Config) -> None:
    """Raise ValueError if CLIP's loss would have a wrong weight in row clip, or if the judge would guide."""
    flat, named = computed(base), study.config
    wrong = [key for key, value in CLIP_WEIGHT_FOR.items() if flat[key] != value]
    if CLIP in study.rows and wrong:
        raise ValueError(
            f"{named}: {wrong[0]} is {flat[wrong[0]]!r}, and the weight of CLIP's loss in row clip was measured with "
            f"{CLIP_WEIGHT_FOR[wrong[0]]!r}; set loss.guidance_ratio in place of loss.guidance_weight (both losses "
            "then have the same strength), measure the weight with --clip-weight and put it into dreamportrait/systems/"
            "dreamportrait/ablations/rows.py, or leave that row out with --rows"
        )
    guide = base.guidance.clip or base.text.clip
    if guide == (study.judge or default_judge(study.dataset)):
        raise ValueError(f"{named}: text.clip is {guide}, which also judges; the judge must not guide")


def sites_and_ratio(path: Path, changes: Sequence[str]) -> tuple[tuple[int, ...], bool]:
    """Return what the rows depend on: the places for adapters, and whether guidance has loss.guidance_ratio."""
    config = load_config(path, changes)
    last = network_configs(config)[0].plane_resolution
    return tuple(4 << i for i in range((last // 4).bit_length() - 1)), config.loss.guidance_ratio is not None


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


def read_results(out: Path, rows: tuple[Row, ...] | None = None, own: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return all results of a folder. Raise ValueError if they differ in a setting that no row changes.

    rows: that the results may be of. None = those of the ablations for what was trained.
    own: further settings that a row may have for itself.
    """
    paths = sorted((out / "results").glob("*.json"))
    found = [read_result(path) for path in paths]
    rows = rows or rows_of_results(found)
    names = [row.name for row in rows]
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


def rows_of_results(results: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """Return the rows of the ablations for the generator that results are of."""
    settings = [each["settings"] for each in results]
    by_ratio = any(each.get("loss.guidance_ratio") is not None for each in settings)
    world = results[0]["world"] if results else MINI
    return rows_in(world, sites_of_results(results), by_ratio)


def sites_of_results(results: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(next((each["sites"] for each in results if "sites" in each), MINI_SITES))

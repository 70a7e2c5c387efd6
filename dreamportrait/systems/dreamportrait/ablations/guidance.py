"""The comparison of guidance losses: rows, the weight and length of each training, costs, the table.

All rows begin from the same checkpoint. Each row has the guidance weight at which its gradient at a picture of that
checkpoint is as long as that of D-SDS. Otherwise, the comparison would be one of weights.
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from dreamportrait.core.files import write_text
from dreamportrait.metrics.report import table
from dreamportrait.systems.dreamportrait.ablations.clip_weight import mean_slope
from dreamportrait.systems.dreamportrait.ablations.page import cells, head, measured
from dreamportrait.systems.dreamportrait.ablations.rows import Row
from dreamportrait.systems.dreamportrait.ablations.runs import train_row
from dreamportrait.systems.dreamportrait.ablations.study import Job, Study, shortened
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.training.states import load_state

START = Row("start", "the checkpoint that all rows begin from", trained=False)
NOTHING = Row("nothing", "no guidance: the GAN loss alone", ("guidance.kind=none",))
SDS = Row("sds", "D-SDS", ("guidance.kind=sds",))
ALL = (
    START,
    NOTHING,
    SDS,
    Row("sds-small", "D-SDS through a small encoder (`--encoder`)", ("guidance.kind=sds",)),
    Row("asd", "ASD", ("guidance.kind=asd",)),
    Row("csd", "CSD", ("guidance.kind=csd",)),
    Row("dmd", "DMD", ("guidance.kind=dmd",)),
    Row("dmd-js", "DMD with the Jensen-Shannon weight", ("guidance.kind=dmd", "guidance.divergence=js")),
    Row("pairs", "no guidance: the GAN loss and the critic of pairs (`--pairs`)", ("guidance.kind=none",)),
    Row(
        "pairs-alone", "the critic of pairs alone, no GAN loss (`--pairs`)", ("guidance.kind=none", "loss.gan_weight=0")
    ),
    Row("sds-pairs", "D-SDS and the critic of pairs (`--pairs`)", ("guidance.kind=sds",)),
    Row("sds-js", "D-SDS with the Jensen-Shannon weight", ("guidance.kind=sds", "guidance.divergence=js")),
)
SMALL, WITH_PAIRS = "sds-small", ("pairs", "pairs-alone", "sds-pairs")
USUAL = tuple(row.name for row in ALL if row.name not in ("sds-js", SMALL, *WITH_PAIRS))
# Settings that differ between rows. Lengths do with --minutes, and the average's half-life follows them.
OWN = (
    "loss.guidance_weight",
    "loss.pair_weight",
    "loss.pairs",
    "guidance.encoder",
    "optim.ema_images",
    *(f"stages.{i}.images" for i in range(9)),
)
COST_STEPS = 16  # a whole turn of the regularisers


class Cost(NamedTuple):
    """The time of a training on this machine."""

    seconds_per_step: float
    warm_up: float  # seconds that the first step takes longer than the others: the warm-up of the fake score


class Lengths(NamedTuple):
    """How long every row trains after the start. Exactly one is given."""

    images: int | None
    minutes: float | None  # of training on this machine, by the measured costs


# Before the trainings.


def with_fake(rows: Sequence[Row], settings: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows, those with a fake score with further settings of it. settings: such as "updates=4"."""
    added = tuple(f"fake.{setting}" for setting in settings)
    return tuple(
        row._replace(changes=(*row.changes, *added)) if "guidance.kind=dmd" in row.changes else row for row in rows
    )


def with_encoder(rows: Sequence[Row], encoder: Path | None) -> tuple[Row, ...]:
    """Return the rows, the one of the small encoder with its folder."""
    if (encoder is None) == any(row.name == SMALL for row in rows):
        raise ValueError(f"--encoder {encoder}: give the folder of a small encoder with row {SMALL}, and only with it")
    added = f"guidance.encoder={encoder}"
    return tuple(row._replace(changes=(*row.changes, added)) if row.name == SMALL else row for row in rows)


def with_pairs(rows: Sequence[Row], pairs: Path | None, weight: float) -> tuple[Row, ...]:
    """Return the rows, those with a critic of pairs with the pairs of a text prior and the weight of its loss."""
    if (pairs is None) == any(row.name in WITH_PAIRS for row in rows):
        named = ", ".join(WITH_PAIRS)
        raise ValueError(f"--pairs {pairs}: give the pairs of a text prior with rows {named}, and only with them")
    added = f"loss.pairs={pairs}", f"loss.pair_weight={weight:g}"
    return tuple(row._replace(changes=(*row.changes, *added)) if row.name in WITH_PAIRS else row for row in rows)


def weights(study: Study, pictures: int) -> dict[str, float]:
    """Return loss.guidance_weight by row, from OUT/weights.json, and measure what is missing there.

    A fake score counts as it is before its warm-up, when it equals the frozen model. The Jensen-Shannon weight has mean
    1 and is left out, as is the critic of pairs, which does not act on pictures.
    """
    path, config = study.out / "weights.json", load_config(study.path)
    about = {"start": str(study.start), "pictures": pictures, "guidance_weight": config.loss.guidance_weight}
    about |= {"guidance": config.guidance.model_dump(mode="json")}
    found = _read(path, about)
    for row in (SDS, *study.rows):
        guided = load_config(study.path, row.changes)
        if row.trained and guided.needs_guidance and not _has(found, row):
            alone = {
                "guidance": guided.guidance.model_copy(update={"divergence": "kl"}),
                "loss": guided.loss.model_copy(update={"pair_weight": 0.0, "pairs": None}),
            }
            plain = guided.model_copy(update=alone)
            slope = mean_slope(plain, pictures, study.start)
            reference = found[SDS.name]["slope"] if row is not SDS else slope
            weight = config.loss.guidance_weight * reference / slope
            found[row.name] = {"changes": list(row.changes), "slope": slope, "weight": weight}
            write_text(path, json.dumps({"about": about, "rows": found}, indent=1) + "\n")
    return {name: value["weight"] for name, value in found.items()}


def costs(study: Study) -> dict[str, Cost]:
    """Return the time of a step by row, from OUT/costs.json, and measure what is missing there."""
    path, about = study.out / "costs.json", {"start": str(study.start)}
    found = _read(path, about)
    batch = load_config(study.path).data.batch
    for row in study.rows:
        if row.trained and not _has(found, row):
            changes = (*row.changes, *_length(study, (COST_STEPS + 1) * batch), "samples.prompts=[]")
            timed = row._replace(
                changes=(*changes, f"trainer.log_every_images={batch}", "trainer.measure_every_images=0")
            )
            job, at = Job(timed, 0), replace(study, out=study.out / "costs")
            shutil.rmtree(at.out / "trainings" / job.name, ignore_errors=True)  # of another start or a stopped one
            cost = _cost(train_row(at, job).parent / "log.csv", batch)
            found[row.name] = {"changes": list(row.changes)} | cost._asdict()
            write_text(path, json.dumps({"about": about, "rows": found}, indent=1) + "\n")
    return {name: Cost(value["seconds_per_step"], value["warm_up"]) for name, value in found.items()}


def _cost(log: Path, batch: int) -> Cost:
    """Read the cost from a log with a line for each step."""
    with log.open(newline="") as file:
        seconds = [batch / float(row["images_per_second"]) for row in csv.DictReader(file)]
    first, rest = seconds[0], seconds[1 : 1 + COST_STEPS]
    if len(rest) < COST_STEPS:
        raise ValueError(f"{log} has {len(seconds)} steps, fewer than {COST_STEPS + 1}; remove its run and try again")
    step = sum(rest) / len(rest)
    return Cost(step, max(first - step, 0.0))


def tailored(study: Study, found: Mapping[str, float], lengths: Lengths) -> Study:
    """Return a study whose rows have their own weight and length."""
    spent = costs(study) if lengths.minutes is not None else {}
    batch, rows = load_config(study.path).data.batch, []
    for row in study.rows:
        changes: tuple[str, ...] = ()
        if row.trained:
            images = lengths.images
            if lengths.minutes is not None:
                images = _images(lengths.minutes, spent[row.name], batch)
            assert images is not None
            changes = _length(study, images)
        if row.name in found:
            changes += (f"loss.guidance_weight={found[row.name]:.4g}",)
        rows.append(row._replace(changes=(*row.changes, *changes)))
    return replace(study, rows=tuple(rows))


def _images(minutes: float, cost: Cost, batch: int) -> int:
    steps = int((60 * minutes - cost.warm_up) / cost.seconds_per_step)
    if steps < 1:
        raise ValueError(f"--minutes {minutes:g}: shorter than the warm-up of {cost.warm_up:.0f} s and one step")
    return steps * batch


def _length(study: Study, images: int) -> tuple[str, ...]:
    """Return the settings that end a training `images` images after the start, see study.shortened."""
    config = load_config(study.path)
    stages = config.stages
    before = sum(stage.images for stage in stages[:-1])
    seen = 0 if study.start is None else seen_by(study.start)
    if seen < before:
        raise ValueError(
            f"--start {study.start}: after {seen} images, before the last stage begins at {before}; "
            "name a later checkpoint, such as the one at the end of the stage before"
        )
    return f"stages.{len(stages) - 1}.images={seen - before + images}", shortened(config, images)


def seen_by(checkpoint: Path) -> int:
    """Return the number of images that a checkpoint's training had seen."""
    state = load_state(checkpoint)
    if state is None or "images" not in state:
        raise ValueError(f"--start {checkpoint}: is no checkpoint of a training; name one")
    return int(state["images"])


def _has(found: Mapping[str, Any], row: Row) -> bool:
    """Return whether a row was measured with its present settings."""
    return row.name in found and found[row.name]["changes"] == list(row.changes)


def _read(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["about"] != about:
        raise ValueError(f"{path} was made with {kept['about']}, now it is {dict(about)}; name another --out")
    rows: dict[str, Any] = kept["rows"]
    return rows


# After the trainings.


def render(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the results as Markdown."""
    values, lines = measured(results), []
    also = next((result["settings"]["also"] for result in results if "also" in result["settings"]), None)
    for row in ALL:
        mine = [result for result in results if result["row"] == row.name]
        if not mine:
            continue
        chosen = mine[0]["settings"]
        weight = f"{chosen['loss.guidance_weight']:g}" if chosen.get("guidance.kind", "none") != "none" else "-"
        minutes = sum(result["seconds"]["training"] for result in mine) / len(mine) / 60
        spent = [weight, _images_of(chosen), f"{minutes:.1f}" if row.trained else "-"]
        looks = _looks([each["report"]["scores"] for each in mine])
        lines.append([row.what, *cells(row.name, values), *looks, *(_also(mine) if also else []), *spent])
    distance = results[0]["report"]["extractor"]["distance"] if results else "FID"
    scores = "all said is shown, %", "unsaid kept, %", "sharpness distance", "nearest patch"
    second = [f"{also}: R-P, %", f"{also}: said and shown, %"] if also else []
    spent = ["guidance weight", "images at the end", "minutes of training"]
    return table(["", *head(distance), *scores, *second, *spent], lines) + "\n"


def _looks(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what shows whether a row keeps the person and clean faces. "-" = not measured."""
    sharpness = [each["sharpness"]["all"] for each in scores if "sharpness" in each]
    found = [
        [100 * each["oracle"]["complete"] for each in scores if each.get("oracle")],
        [100 * each["unsaid"]["share"] for each in scores if each.get("unsaid")],
        [each["distance"] for each in sharpness],
        [each["nearest"] for each in sharpness],
    ]
    return [_spread(values) for values in found]


def _also(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return R-Precision and what is said and shown, on the second data set."""
    scores = [each["also"]["scores"] for each in results]
    found = [
        [100 * each["r_precision"]["value"] for each in scores],
        [100 * each["oracle"]["share"] for each in scores if each.get("oracle")],
    ]
    return [_spread(values) for values in found]


def _spread(values: Sequence[float]) -> str:
    if len(values) > 1:
        return f"{mean(values):.1f} +- {stdev(values):.1f}"
    return f"{values[0]:.1f}" if values else "-"


def _images_of(chosen: Mapping[str, Any]) -> str:
    lengths = [value for key, value in chosen.items() if key.startswith("stages.") and key.endswith(".images")]
    return f"{sum(lengths):,}" if lengths else "-"

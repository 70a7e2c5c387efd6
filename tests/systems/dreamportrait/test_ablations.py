"""Tests of the paper's ablations: rows and tables, planned jobs, continued studies.

Training and measuring are replaced by stand-ins, except in the section on real training.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from toy_run import ROOT, arguments, write_sources

from dreamportrait.core.files import write_text
from dreamportrait.metrics import evaluation
from dreamportrait.systems.dreamportrait.ablations import clip_weight, rows, runs
from dreamportrait.systems.dreamportrait.ablations.rows import (
    ALL,
    BASE,
    CLIP,
    CLIP_WEIGHT_FOR,
    ROWS,
    TABLES,
    WHOLE,
    WORLDS,
    Claim,
)
from dreamportrait.systems.dreamportrait.ablations.study import (
    Job,
    Study,
    check,
    choose,
    overrides,
    placed,
    result_path,
    settings,
)
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.training.resume import computed

MINI = ROOT / WORLDS["mini"].config


def study(folder: Path, names: str | None = "base,no-gate", path: Path | None = None, **changes) -> Study:
    """Return a study, by default of the miniature world's, with the settings for which CLIP's weight was measured."""
    if path is None:
        path = folder / "whole.yaml"
        path.write_text(load_config(MINI, [f"{key}={value}" for key, value in CLIP_WEIGHT_FOR.items()]).to_yaml())
    given = {"seeds": 2, "images": None, "samples": 20, "dataset": "miniworld:test"} | changes
    return Study(ROOT, folder / "out", WORLDS["mini"].config, path, "mini", choose(names), **given)


# Rows.


@pytest.mark.parametrize("row", ALL, ids=[row.name for row in ALL])
def test_each_row_changes_one_thing(row):
    base, changed = computed(load_config(MINI)), computed(load_config(MINI, row.changes))
    keys = {key for key, value in changed.items() if base[key] != value}
    assert keys == {change.partition("=")[0] for change in row.changes}
    assert len(keys & WHOLE.keys()) == (0 if row.name in ("base", "pretrained", "ours") else 1)
    assert keys - WHOLE.keys() <= {"loss.guidance_weight"}


def test_tables():
    assert len(ROWS) == len(ALL) == 13
    for table in TABLES:
        assert table.lines[-1].row == BASE.name
        assert all(line.row in ROWS for line in table.lines)
    guides = TABLES[0].claims()
    assert len(guides) == 9
    assert Claim("fid", "no-guidance", "base") in guides and Claim("r_precision", "clip", "base") in guides
    assert Claim("fid", "no-gate", "base") in TABLES[1].claims()  # as in the table; the paper's text disagrees
    assert Claim("fid", "base", "freeze-d") in TABLES[2].claims()
    assert {claim.metric for claim in TABLES[4].claims()} == {"diversity", "r_precision", "msc"}
    named = {line.row for table in TABLES for line in table.lines}
    assert named == {row.name for row in ALL if row.trained}


def test_choosing_rows():
    assert choose(None) == ALL
    assert [row.name for row in choose("no-gate, base")] == ["base", "no-gate"]
    with pytest.raises(ValueError, match=r"--rows base,gate: no row 'gate'; must be some of pretrained,base,"):
        choose("base,gate")


def test_the_shipped_model_is_measured_as_it_is(tmp_path):
    given = study(tmp_path, "ours")
    assert (locate_portrait(runs.train_row(given, Job(ROWS["ours"], 0)).name) / "config.json").is_file()
    assert not given.out.exists()


# Planned jobs.


def test_seeds_come_before_rows(tmp_path):
    names = [job.name for job in study(tmp_path, "pretrained,base,no-gate").jobs()]
    assert names == ["pretrained-seed0", "base-seed0", "no-gate-seed0", "base-seed1", "no-gate-seed1"]


def test_settings_of_a_training(tmp_path):
    made = study(tmp_path, images=3200)
    whole, config = load_config(made.path), load_config(made.path, placed(made, Job(ROWS["no-gate"], 1)))
    assert config.stages[-1].images == 3200 and config.stages[0] == whole.stages[0]
    assert config.optim.ema_images == round(whole.optim.ema_images * 3200 / whole.stages[-1].images)
    assert config.run.seed == 1 and not config.model.conditioning.gate
    assert config.folder == tmp_path / "out" / "trainings" / "no-gate-seed1"
    assert overrides(replace(made, images=None), Job(BASE, 0)) == ("run.seed=0",)
    check(made)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.conditioning.gate", False, r"model\.conditioning\.gate is False, and True in the whole method"),
        ("guidance.kind", "clip", r"guidance\.kind is 'clip', and 'sds' in the whole method"),
        (
            "guidance.scale",
            3.5,
            r"guidance\.scale is 3\.5, and the weight of CLIP's loss .* was measured with \d+",
        ),
        ("model.pretrained", "/no/such", "was measured with 'mini/eg3d'"),
    ],
)
def test_another_whole_method(tmp_path, key, value, message):
    given = study(tmp_path, "base,clip")
    given.path.write_text(load_config(given.path, [f"{key}={value}"]).to_yaml())
    with pytest.raises(ValueError, match=message):
        check(given)


def test_what_is_missing_is_found_before(tmp_path):
    given = study(tmp_path)
    given.path.write_text(load_config(given.path, ["model.pretrained=/no/such"]).to_yaml())
    with pytest.raises(ValueError, match=r"row base, seed 0: model\.pretrained: .*/no/such"):
        check(given)
    with pytest.raises(ValueError, match=r"stages\.1\.images and data\.batch: 33 images are no whole number"):
        check(replace(study(tmp_path), images=33))


def test_the_judge_does_not_guide(tmp_path, monkeypatch):
    monkeypatch.setitem(rows.CLIP_WEIGHT_FOR, "text.clip", "mini/clip-b")
    with pytest.raises(ValueError, match=r"text\.clip is mini/clip-b, which also judges"):
        check(study(tmp_path, "clip"))


# Running the jobs.


class Stubs:
    """Stand-ins for training and measuring, which record the jobs. A row in `broken` raises its exception."""

    def __init__(self, **broken: Exception) -> None:
        self.broken, self.done = broken, []

    def train(self, given: Study, job: Job) -> Path:
        self.done.append(job.name)
        if error := self.broken.get(job.row.name.replace("-", "_")):
            raise error
        return Path("portrait of") / job.name

    def measure(self, given: Study, job: Job, portrait: Path) -> dict:
        assert portrait.name == job.name
        return report(len(self.done))

    def run(self, given: Study, said: list[str] | None = None) -> list[Job]:
        self.done = []
        return runs.run(given, (said if said is not None else []).append, self.train, self.measure)


def report(number: float) -> dict:
    value = number / 100
    return {
        "scores": {
            "fid": value,
            "msc": 10 * number,
            "r_precision": {"value": value, "low": value / 2, "high": 2 * value, "candidates": 20},
            "prompt_diversity": {"features": value, "colors": 0.5},
            "oracle": {"share": value},
        },
        "extractor": {"distance": "FID(mini-clip)"},
        "judge": {"clip": "mini/clip-b", "sha256": "c" * 64},
        "code": {"version": "0.1.0", "commit": "d" * 40, "uncommitted_changes": False},
    }


@pytest.mark.lengthy
def test_all_rows_and_again(tmp_path):
    given, stubs, said = study(tmp_path), Stubs(), []
    assert stubs.run(given, said) == []
    assert stubs.done == ["base-seed0", "no-gate-seed0", "base-seed1", "no-gate-seed1"]
    assert said[1] == "[1/4] base-seed0: FID 0.0100, MSC 10.00, R-P 1.0 %"
    found = json.loads(result_path(given.out, Job(ROWS["no-gate"], 0)).read_text())
    assert (found["row"], found["seed"], found["world"]) == ("no-gate", 0, "mini")
    assert found["settings"]["model.conditioning.gate"] is False and found["settings"]["samples"] == 20
    assert found["report"] == report(2) and found["seconds"].keys() == {"training", "measuring"}

    stubs.run(given)
    assert stubs.done == []
    result_path(given.out, Job(BASE, 1)).unlink()
    stubs.run(replace(given, seeds=3))
    assert stubs.done == ["base-seed1", "base-seed2", "no-gate-seed2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": 1600},
            r"base-seed0\.json was made with .*, stages\.1\.images \d+, now it is 1600; set it back",
        ),
        ({"samples": 30}, r"base-seed0\.json was made with samples 20, now it is 30"),
    ],
)
def test_results_of_other_settings(tmp_path, changes, message):
    given, stubs = study(tmp_path), Stubs()
    stubs.run(given)
    with pytest.raises(ValueError, match=message):
        stubs.run(replace(given, seeds=3, **changes))
    assert stubs.done == []


def test_a_training_of_other_settings(tmp_path):
    """An interrupted training without a result must also have the settings of the study."""
    given = study(tmp_path)
    folder = given.out / "trainings" / "base-seed0"
    folder.mkdir(parents=True)
    job = Job(BASE, 0)
    (folder / "config.yaml").write_text(load_config(given.path, [*placed(given, job), "data.count=77"]).to_yaml())
    with pytest.raises(ValueError, match=r"row base, seed 0: data\.count: was 77 when .* was begun, now \d+"):
        check(given)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"row": 1}'])
def test_a_damaged_result(tmp_path, text):
    given = study(tmp_path)
    write_text(result_path(given.out, Job(BASE, 0)), text)
    with pytest.raises(ValueError, match=r"base-seed0\.json is not a result of an ablation: .*; delete it"):
        check(given)


def test_a_row_that_fails_does_not_stop_the_others(tmp_path):
    given, said = study(tmp_path, seeds=1), []
    assert Stubs(base=runs.TrainingFailed("exit code 1")).run(given, said) == [Job(BASE, 0)]
    assert said[1] == "[1/2] base-seed0: failed: exit code 1" and "R-P" in said[3]
    stubs = Stubs()
    assert stubs.run(given) == [] and stubs.done == ["base-seed0"]


def test_an_interruption_keeps_what_is_done_and_the_time(tmp_path, monkeypatch):
    given, clock = study(tmp_path, seeds=1), iter(range(0, 1000, 10))
    monkeypatch.setattr(runs.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt):
        Stubs(no_gate=KeyboardInterrupt()).run(given)
    stubs = Stubs()
    stubs.run(given)
    assert stubs.done == ["no-gate-seed0"]
    seconds = [json.loads(result_path(given.out, Job(row, 0)).read_text())["seconds"] for row in given.rows]
    assert seconds == [{"training": 10, "measuring": 10}, {"training": 20, "measuring": 10}]


def test_all_rows_read_one_configuration(tmp_path):
    """All rows must use the configuration read at the start, even if the file changes meanwhile."""
    given, stubs, found = study(tmp_path), Stubs(), []
    train = stubs.train

    def edited(now: Study, job: Job) -> Path:
        given.path.write_text("run: {}")
        found.append(settings(now, job)["model.pretrained"])
        return train(now, job)

    stubs.train = edited
    stubs.run(given)
    assert found == ["mini/eg3d"] * 4


def test_only_one_at_a_time(tmp_path):
    given = study(tmp_path)
    given.out.mkdir()
    with FileLock(given.out / ".lock"), pytest.raises(ValueError, match="another process is filling it"):
        Stubs().run(given)


def test_train_py_is_a_process_of_its_own(tmp_path):
    given = replace(study(tmp_path), root=tmp_path)
    script = tmp_path / "train.py"
    script.write_text("import sys; print(*sys.argv[1:])")
    job = Job(ROWS["no-gate"], 1)
    assert runs.train_row(given, job) == given.out / "trainings" / "no-gate-seed1" / "portrait"
    log = given.out / "logs" / "no-gate-seed1.txt"
    words = log.read_text().split()
    assert words[:4] == ["--config", str(given.path), "--set", "model.conditioning.gate=false"]
    assert "run.seed=1" in words

    script.write_text("raise SystemExit('a loss is not finite')")
    with pytest.raises(runs.TrainingFailed, match=r"exit code 1; .*no-gate-seed1\.txt ends: .* / a loss is not finite"):
        runs.train_row(given, job)


# Real training and measuring, with tiny networks.


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Study:
    """Return a study of a method without guidance, on tiny networks."""
    sources = write_sources(tmp_path / "sources")
    clip, path = sources / "CLIP", tmp_path / "tiny.yaml"
    _, config, *words = arguments(sources, tmp_path, "samples.prompts=[]")
    path.write_text(load_config(config, words[1::2]).to_yaml())
    monkeypatch.setattr(evaluation, "default_judge", lambda source: str(clip))
    monkeypatch.setattr(evaluation, "default_extractor", lambda source: f"clip:{clip}")
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path / "cache"))
    return study(tmp_path, "pretrained", path=path, samples=10, dataset=str(sources / "FACES"))


@pytest.mark.lengthy
def test_the_pretrained_generator(tiny):
    job = Job(ROWS["pretrained"], 0)
    portrait = runs.train_row(tiny, job)
    assert load_portrait(portrait).text.clip.endswith("CLIP")
    found = runs.measure_row(tiny, job, portrait)
    assert found["scores"]["r_precision"]["count"] == found["protocol"]["count"] == 10
    assert runs.measure_row(tiny, job, portrait)["scores"] == found["scores"]


@pytest.mark.slow  # starts processes that import PyTorch
def test_a_training(tiny):
    job = Job(ROWS["no-gate"], 1)
    portrait = runs.train_row(tiny, job)
    assert not load_portrait(portrait).generator.conditioning.gate
    assert yaml.safe_load((portrait.parent / "config.yaml").read_text())["run"]["seed"] == 1
    assert runs.train_row(tiny, job) == portrait  # the second run has nothing left to do
    assert runs.measure_row(tiny, job, portrait)["checkpoint"]["checkpoint"] == str(portrait)


@pytest.mark.lengthy
def test_the_weight_of_clip(tiny, monkeypatch):
    """Use losses whose gradient is known: for one picture it is `size` at each number of the picture."""
    sizes = {"sds": 3.0, "clip": 0.5}
    monkeypatch.setattr(
        clip_weight.build,
        "make_guide",
        lambda config, device: lambda images, *_: sizes[config.guidance.kind] * images.sum((1, 2, 3)).mean(),
    )
    config = load_config(tiny.path, ["guidance.kind=sds", "loss.guidance_weight=2"])
    found = clip_weight.clip_weight(config, pictures=6)
    assert found.sds == pytest.approx(3 * math.sqrt(3 * 16 * 16), rel=1e-5)
    assert found.weight == pytest.approx(2 * 3 / 0.5, rel=1e-5)


def test_the_weight_in_the_row():
    assert f"loss.guidance_weight={rows.CLIP_WEIGHT}" in CLIP.changes and rows.CLIP_WEIGHT > 1

"""Tests of the comparison of guidance losses: rows, weights, lengths, costs, the table. Training is replaced."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from scripts import load_script
from toy_run import ROOT

from dreamportrait.core.files import write_text
from dreamportrait.systems.dreamportrait import subject
from dreamportrait.systems.dreamportrait.ablations import guidance, runs
from dreamportrait.systems.dreamportrait.ablations import study as studies
from dreamportrait.systems.dreamportrait.ablations.guidance import ALL, Cost, Lengths
from dreamportrait.systems.dreamportrait.ablations.study import Job, Study, choose, placed, result_path, resume
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.training.resume import computed
from dreamportrait.training.states import save_state

MINI = ROOT / "configs" / "dreamportrait" / "mini.yaml"
SCRIPT = load_script("eval/guidance.py")
SLOPES = {"sds": 0.5, "asd": 0.25, "csd": 2.0, "dmd": 1.0}


def study(folder: Path, rows: str = "start,nothing,sds,dmd,dmd-js", images: int = 640) -> Study:
    start = folder / "begun" / "checkpoints" / f"images-{images:09d}.ckpt"
    save_state(start, {"images": images})
    chosen = choose(rows, ALL)
    return Study(ROOT, folder / "out", str(MINI), MINI, "mini", chosen, 1, None, 20, "miniworld:test", start)


@pytest.mark.parametrize("row", ALL, ids=[row.name for row in ALL])
def test_rows_differ_in_guidance_alone(row):
    base, changed = computed(load_config(MINI)), computed(load_config(MINI, row.changes))
    different = {key for key, value in changed.items() if base[key] != value}
    alone = {"loss.gan_weight"} if row.name == "pairs-alone" else set()
    assert alone <= different <= {"guidance.kind", "guidance.divergence"} | alone


def test_the_small_encoder_of_a_row(tmp_path):
    rows = guidance.with_encoder(choose("sds,sds-small", ALL), tmp_path)
    assert [row.changes for row in rows] == [
        ("guidance.kind=sds",),
        ("guidance.kind=sds", f"guidance.encoder={tmp_path}"),
    ]
    assert guidance.with_encoder(choose("sds", ALL), None) == choose("sds", ALL)
    for names, encoder in (("sds,sds-small", None), ("sds", tmp_path)):
        with pytest.raises(ValueError, match=r"--encoder .*: give the folder of a small encoder with row sds-small"):
            guidance.with_encoder(choose(names, ALL), encoder)


def test_the_pairs_of_rows(tmp_path):
    rows = guidance.with_pairs(choose("sds,pairs", ALL), tmp_path, 3.0)
    assert [row.changes for row in rows] == [
        ("guidance.kind=sds",),
        ("guidance.kind=none", f"loss.pairs={tmp_path}", "loss.pair_weight=3"),
    ]
    for names, pairs in (("sds,sds-pairs", None), ("sds", tmp_path)):
        with pytest.raises(
            ValueError, match=r"--pairs .*: give the pairs of a text prior with rows pairs, pairs-alone, sds-pairs, and"
        ):
            guidance.with_pairs(choose(names, ALL), pairs, 3.0)


def test_weights_make_gradients_equally_long(tmp_path, monkeypatch):
    asked = []

    def slope(config: Any, pictures: int, start: Path) -> float:
        assert config.guidance.divergence == "kl" and start == tmp_path / "begun/checkpoints/images-000000640.ckpt"
        asked.append(config.guidance.kind)
        return SLOPES[config.guidance.kind]

    monkeypatch.setattr(guidance, "mean_slope", slope)
    given = study(tmp_path)
    expected = {"sds": 0.2, "dmd": 0.1, "dmd-js": 0.1}  # mini.yaml has 0.2 for D-SDS
    assert guidance.weights(given, 16) == pytest.approx(expected)
    assert guidance.weights(given, 16) == pytest.approx(expected) and asked == ["sds", "dmd", "dmd"]
    with pytest.raises(ValueError, match=r"weights.json was made with .*'pictures': 16.*; name another --out"):
        guidance.weights(given, 32)


def test_equal_images(tmp_path):
    made = guidance.tailored(study(tmp_path, images=960), {"sds": 0.2, "dmd": 0.1}, Lengths(3200, None))
    rows = {row.name: row.changes for row in made.rows}
    assert rows["start"] == ()
    whole = load_config(MINI)
    average = f"optim.ema_images={round(whole.optim.ema_images * 3200 / whole.stages[-1].images)}"
    assert rows["nothing"] == ("guidance.kind=none", "stages.1.images=3520", average)  # 320 of them before the start
    assert rows["dmd"] == ("guidance.kind=dmd", "stages.1.images=3520", average, "loss.guidance_weight=0.1")


def test_equal_time(tmp_path, monkeypatch):
    """In one minute: 120 steps of 0.5 s, or 50 steps of 1 s after 10 s of warm-up."""
    given = study(tmp_path, "sds,dmd")
    monkeypatch.setattr(guidance, "costs", lambda _: {"sds": Cost(0.5, 0.0), "dmd": Cost(1.0, 10.0)})
    made = guidance.tailored(given, {}, Lengths(None, 1.0))
    assert [row.changes[1] for row in made.rows] == ["stages.1.images=1920", "stages.1.images=800"]
    with pytest.raises(ValueError, match=r"--minutes 0.1: shorter than the warm-up of 10 s and one step"):
        guidance.tailored(given, {}, Lengths(None, 0.1))


def test_settings_of_the_fake_score():
    rows = {row.name: row.changes for row in guidance.with_fake(ALL, ["updates=4"])}
    assert [name for name, changes in rows.items() if "fake.updates=4" in changes] == ["dmd", "dmd-js"]
    assert load_config(MINI, rows["dmd-js"]).fake.updates == 4


def test_costs_are_read_from_the_log(tmp_path, monkeypatch):
    given, trained = study(tmp_path, "nothing,dmd"), []

    def train(at: Study, job: Job) -> Path:
        trained.append((job.row.name, [change for change in job.row.changes if change.startswith("stages")]))
        first = 0.5 if job.row.name == "dmd" else 8  # images per second
        lines = "".join(f"{16 * (i + 1)},{first if i == 0 else 16 if i % 2 else 32}\n" for i in range(17))
        write_text(at.out / job.row.name / "log.csv", f"images,images_per_second\n{lines}")
        return at.out / job.row.name / "portrait"

    monkeypatch.setattr(guidance, "train_row", train)
    found = guidance.costs(given)
    assert found == {"nothing": Cost(0.75, 1.25), "dmd": Cost(0.75, 31.25)}
    assert guidance.costs(given) == found and trained == [
        ("nothing", ["stages.1.images=272"]),
        ("dmd", ["stages.1.images=272"]),
    ]


def test_a_start_before_the_last_stage(tmp_path):
    with pytest.raises(ValueError, match=r"after 320 images, before the last stage begins at 640; name a later"):
        guidance.tailored(study(tmp_path, images=320), {}, Lengths(1600, None))
    save_state(tmp_path / "other.ckpt", {"step": 3})
    with pytest.raises(ValueError, match="is no checkpoint of a training"):
        guidance.seen_by(tmp_path / "other.ckpt")


def test_trainings_begin_from_the_start_and_then_from_themselves(tmp_path):
    given = study(tmp_path)
    job = Job(given.rows[2], 0)
    assert resume(given, job) == str(given.start)
    save_state(given.out / "trainings" / job.name / "checkpoints" / "images-000000656.ckpt", {})
    assert resume(given, job) == "auto"
    assert runs.train_row(given, Job(given.rows[0], 0)) == given.start
    assert placed(given, job)[-1] == "run.name=sds-seed0"


def test_a_second_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "plan", lambda *given, **options: SimpleNamespace(problems=[]))
    given, measured = replace(study(tmp_path, "start"), also="miniworld:combinations"), []

    def measure(at: Study, job: Job, portrait: Path) -> dict[str, Any]:
        measured.append((at.dataset, at.out.name))
        scores = {"fid": 0.05, "msc": 3.0, "r_precision": {"value": len(measured) / 4, "low": 0.0, "high": 1.0}}
        scores |= {"prompt_diversity": {"features": 0.25}, "oracle": {"share": len(measured) / 8, "complete": 0.5}}
        return {"scores": scores, "extractor": {"distance": "FID(mini-clip)"}}

    assert not runs.run(given, lambda _: None, measure=measure)
    assert measured == [("miniworld:test", "out"), ("miniworld:combinations", "also")]
    SCRIPT.write_table(given.out)
    lines = (given.out / "guidance.md").read_text().splitlines()
    assert "| miniworld:combinations: R-P, % | miniworld:combinations: said and shown, % |" in lines[0]
    assert "| 25.0 (0.0 to 100.0) |" in lines[2] and "| 50.0 | 25.0 |" in lines[2]
    with pytest.raises(ValueError, match=r"was made with also 'miniworld:combinations', now it is None"):
        studies.check(replace(given, also=None))
    with pytest.raises(ValueError, match="no split 'nothing'"):
        studies.check(replace(given, also="miniworld:nothing"))


def test_the_table(tmp_path):
    out = tmp_path / "out"
    for name, images, kind in (("start", None, None), ("nothing", 3840, "none"), ("dmd", 1920, "dmd")):
        chosen = {"samples": 20, "dataset": "miniworld:validation"}
        if images:
            chosen |= {"stages.0.images": 640, "stages.1.images": images, "guidance.kind": kind}
            chosen |= {"loss.guidance_weight": 0.125, "optim.ema_images": images // 10}
        scores = {
            "fid": 0.05,
            "msc": 30.0,
            "r_precision": {"value": 0.5, "low": 0.4, "high": 0.6},
            "prompt_diversity": {"features": 0.25},
            "oracle": {"share": 0.75, "complete": 0.5},
            "unsaid": {"share": 0.7},
            "sharpness": {"all": {"distance": 25.0, "nearest": 160.0}},
        }
        if name == "start":  # measured by an earlier version
            del scores["unsaid"], scores["sharpness"]
        found = {"row": name, "seed": 0, "world": "mini", "config": "x", "settings": chosen, "machine": {}}
        report = {"scores": scores, "extractor": {"distance": "FID(mini-clip)"}}
        found |= {"seconds": {"training": 90.0, "measuring": 1.0}, "report": report}
        write_text(result_path(out, Job(next(row for row in ALL if row.name == name), 0)), json.dumps(found))
    result = CliRunner().invoke(SCRIPT.main, ["--render", "--out", str(out)])
    assert result.exception is None, result.output
    lines = (out / "guidance.md").read_text().splitlines()
    assert len(lines) == 2 + 3 and len(json.loads((out / "guidance.json").read_text())) == 3
    assert lines[2].startswith("| the checkpoint that all rows begin from | 1 | 0.0500 |") and lines[2].endswith("- |")
    assert "| 50.0 | - | - | - |" in lines[2] and "| 50.0 | 70.0 | 25.0 | 160.0 |" in lines[3]
    assert "| - | 4,480 | 1.5 |" in lines[3] and "| 0.125 | 2,560 | 1.5 |" in lines[4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--start: missing"),
        (["--costs", "--render"], "exclude each other"),
        (["--sheet", "--render"], "exclude each other"),
        (["--start", str(MINI)], "--images, --minutes: give exactly one"),
        (["--start", str(MINI), "--images", "3", "--rows", "base"], "no row 'base'; must be some of start,nothing,sds"),
        (["--render", "--out", "nowhere"], "holds no results"),
    ],
)
def test_wrong_commands(words, message):
    result = CliRunner().invoke(SCRIPT.main, words)
    assert result.exit_code != 0 and message in result.output


def test_the_sheet_has_a_line_for_each_measured_row(tmp_path, monkeypatch):
    given = study(tmp_path, "start,sds,dmd")
    for row in given.rows[:2]:
        write_text(result_path(given.out, Job(row, 0)), "{}")
    asked = []
    mini = subject.load_subject("mini")
    monkeypatch.setattr(subject, "load_subject", lambda source: asked.append(source) or mini)
    SCRIPT.write_sheet(given)
    assert asked == [str(given.start), str(given.out / "trainings" / "sds-seed0" / "portrait")]
    with Image.open(given.out / "guidance.png") as sheet:
        assert sheet.height == 2 * 128  # pictures of 64 pixels are drawn in twice their size


def test_rows_may_begin_with_a_frozen_generator(tmp_path, monkeypatch):
    """A comparison from a checkpoint may freeze the generator; its rows change the guidance alone."""
    monkeypatch.setattr(studies, "plan", lambda *given, **options: SimpleNamespace(problems=[]))
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(f"base: {MINI}\nmodel: {{freeze_generator: true}}\n")
    given = replace(study(tmp_path, "sds,dmd"), path=frozen)
    studies.check(given)
    with pytest.raises(ValueError, match="model.freeze_generator is True, and False in the whole method"):
        studies.check(replace(given, start=None))

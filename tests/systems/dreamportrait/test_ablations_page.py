"""Tests of the command eval/ablations.py and of the page it writes, on hand-made results."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from toy_run import ROOT

from dreamportrait.core.files import write_text
from dreamportrait.systems.dreamportrait.ablations.page import render
from dreamportrait.systems.dreamportrait.ablations.rows import ALL, CLIP_WEIGHT_FOR, ROWS, TABLES, WORLDS
from dreamportrait.systems.dreamportrait.ablations.study import read_results
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.training.resume import computed


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations_script", ROOT / "eval" / "ablations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
MINI = ROOT / WORLDS["mini"].config
IMAGES = load_config(MINI).stages[-1].images


def result(row: str, seed: int, share: float, fid: float = 0.05, **settings) -> dict:
    """Return the result of one job, with R-Precision `share` and MSC 10 * `share`."""
    computed_ = computed(load_config(MINI, [*ROWS[row].changes, f"run.seed={seed}"]))
    return {
        "row": row,
        "seed": seed,
        "world": "mini",
        "config": WORLDS["mini"].config,
        "settings": computed_ | {"samples": 1000, "dataset": "miniworld:test"} | settings,
        "seconds": {"training": 1800, "measuring": 60},
        "machine": {"name": "a processor", "threads": 2, "torch": "2.10"},
        "report": {
            "scores": {
                "fid": fid,
                "msc": 10 * share,
                "r_precision": {"value": share, "low": share - 0.02, "high": share + 0.02, "candidates": 100},
                "prompt_diversity": {"features": 0.25, "colors": 0.5},
                "oracle": {"share": 0.625},
            },
            "extractor": {"distance": "FID(mini-clip)"},
            "judge": {"clip": "mini/clip-b", "sha256": "c" * 64},
            "code": {"version": "0.1.0", "commit": "d" * 40, "uncommitted_changes": False},
        },
    }


def lines(text: str, start: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with `start`."""
    return [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith(f"| {start}")]


# The page.


def test_nothing_was_run():
    page = render([])
    assert "Nothing yet" in page and "| **holds**" not in page
    assert [cells[2:7] for cells in lines(page, "w/o D-SDS")] == [["not run"] * 5]
    assert lines(page, "w/o D-SDS")[0][7:] == ["21.77", "16.69", "27.31"]


def test_what_was_run():
    found = [result("base", seed, 0.4 + 0.02 * seed) for seed in (0, 1, 2)]
    found += [result("no-guidance", seed, 0.1) for seed in (0, 1, 2)]
    page = render(found)
    (ours,) = lines(page, "w/ D-SDS")
    assert ours[1:7] == ["3", "0.0500 +- 0.0000", "4.20 +- 0.20", "42.0 +- 2.0", "0.250 +- 0.000", "62.5 +- 0.0"]
    noise = f"{2 / 2**0.5:.1f}"  # from standard deviations 2 and 0
    (claim,) = lines(page, "R-P: w/o D-SDS (27.31) < w/ D-SDS")
    assert claim[1:] == [f"+32.0, noise {noise}", "3", "**holds**"]
    (claim,) = lines(page, "FID: w/o D-SDS (21.77) < w/ D-SDS")
    assert claim[1:] == ["+0.0000, noise 0.0000", "3", "**within noise**"]
    (claim,) = lines(page, "R-P: w/ CLIP (35.66) < w/ D-SDS")
    assert claim[1:] == ["", "0", "not run"]
    (short,) = lines(page, "Table 2a")
    assert short[1:] == ["9", "not run: 6; holds: 2; within noise: 1", ""]
    assert f"`python eval/ablations.py --world mini --seeds 3 --images {IMAGES} --samples 1000 --split test`" in page
    assert lines(page, "machine time")[0][1] == "3.00 h of training, 0.10 h of measuring"
    assert lines(page, "rows not run")[0][1].startswith("pretrained, clip, no-pooling")
    assert lines(page_of_a_critic(True), "discriminator")[0][1].startswith(
        "except in row freeze-d, it also judges whether"
    )
    assert lines(page_of_a_critic(False), "discriminator")[0][1].startswith("judges pictures only. The paper does not")
    assert "0.1.0 dddddddddd" in page and "a processor, 2 threads, PyTorch 2.10" in page


def page_of_a_critic(reads: bool) -> str:
    return render([result("base", 0, 0.3, **{"loss.text_aware_discriminator": reads})])


def test_what_does_not_hold_is_said():
    found = [result("base", 0, 0.10, fid=0.06), result("no-guidance", 0, 0.40), result("local", 0, 0.11)]
    page = render(found)
    (short,) = lines(page, "Table 2a")
    assert short[2:] == [
        "not run: 6; same direction, one seed: 1; reversed, one seed: 1; does not hold: 1",
        "MSC: not no-guidance < base; R-P: not no-guidance < base",
    ]
    (claim,) = lines(page, "R-P: w/o D-SDS (27.31) < w/ D-SDS")
    assert claim[3] == "**does not hold**"
    (claim,) = lines(page, "R-P: w/ local < both")
    assert claim[3] == "**within noise**"
    (claim,) = lines(page, "MSC: w/ local < both")
    assert claim[1:] == ["-0.10", "1", "**reversed, one seed**"]
    assert lines(page, "w/ local")[0][4] == "11.0 (9.0 to 13.0)"


def test_every_row_has_a_place():
    page = render([result(row.name, 0, 0.3) for row in ALL if row.trained])
    assert lines(page, "rows not run")[0][1] == "pretrained, ours"
    for row in ALL:
        assert any(f"`{' '.join(row.changes)}`" in cells for cells in lines(page, f"{row.name} |")) or not row.changes
    assert sum(len(table.claims()) for table in TABLES) == sum(int(cells[1]) for cells in lines(page, "Table")[:4]) + 4


def test_the_shipped_model_stands_beside_the_whole_method():
    page = render([result("base", 0, 0.3), result("ours", 0, 0.9)])
    (ours,) = lines(page, "ours: the shipped")
    assert ours[4] == "90.0 (88.0 to 92.0)"
    assert lines(page, "trainings")[0][1] == "1"


def test_results_that_do_not_go_together(tmp_path):
    for seed, made in enumerate((result("base", 0, 0.3), result("base", 1, 0.3, samples=500))):
        write_text(tmp_path / "results" / f"base-seed{seed}.json", json.dumps(made))
    with pytest.raises(ValueError, match=r"base-seed1\.json was made with samples 500, .*base-seed0\.json with 1000"):
        read_results(tmp_path)


# The command.


def run(*words: object):
    return CliRunner().invoke(SCRIPT.main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--world", "moon"], "--world moon: must be mini, or a folder that `dreamportrait data prepare` wrote"),
        (["--seeds", 0], "0 is not in the range x>=1"),
        (["--rows", "base,nose"], "--rows base,nose: no row 'nose'; must be some of pretrained,base"),
        (["--images", 17, "--rows", "base"], "17 images are no whole number of batches"),
        (["--config", "/no/such.yaml"], "/no/such.yaml is not there"),
        (["--plan", "--render"], "exclude each other"),
    ],
)
def test_wrong_commands(tmp_path, words, message):
    done = run("--out", tmp_path / "out", "--page", tmp_path / "page.md", *words)
    assert done.exit_code != 0 and message in done.output and "Traceback" not in done.output
    assert not (tmp_path / "page.md").exists() and not (tmp_path / "out" / "trainings").exists()


def test_rendering_alone(tmp_path: Path):
    made = result("base", 0, 0.3)
    write_text(tmp_path / "out" / "results" / "base-seed0.json", json.dumps(made))
    done = run("--render", "--out", tmp_path / "out", "--page", tmp_path / "page.md")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.md").read_text() == render([json.loads(json.dumps(made))])
    write_text(tmp_path / "out" / "conclusion.md", "D-SDS is what obeys.\n")
    assert run("--render", "--out", tmp_path / "out", "--page", tmp_path / "page.md").exit_code == 0
    assert (tmp_path / "page.md").read_text().startswith("# Ablations\n\nD-SDS is what obeys.\n\n`eval/ablations.py`")
    done = run("--render", "--out", tmp_path / "none", "--page", tmp_path / "page.md")
    assert done.exit_code == 1 and "is not there; name the --out folder" in done.output


def test_the_weight_of_clip_as_it_is_written_down(monkeypatch):
    from dreamportrait.systems.dreamportrait.ablations import clip_weight

    monkeypatch.setattr(clip_weight, "clip_weight", lambda config: clip_weight.ClipWeight(12.345, 6.0, 0.5, 32))
    done = run("--clip-weight")
    assert done.exit_code == 0, done.output
    names: dict = {"Any": object}
    exec(done.output.partition("\n\n")[2], names)
    assert names["CLIP_WEIGHT"] == 12.3 and names["CLIP_WEIGHT_FOR"].keys() == CLIP_WEIGHT_FOR.keys()
    assert names["CLIP_WEIGHT_FOR"]["guidance.scale"] == load_config(MINI).guidance.scale


def test_the_plan(tmp_path):
    done = run("--plan", "--rows", "pretrained,no-gate", "--seeds", 2, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "# pretrained-seed0: measured without training"
    assert (
        done.output.count(f"python train.py --config {WORLDS['mini'].config} --set 'model.conditioning.gate=false'")
        == 2
    )
    assert not any(tmp_path.iterdir())


def test_a_failed_row_is_the_end_of_the_command(tmp_path, monkeypatch):
    from dreamportrait.systems.dreamportrait.ablations import runs
    from dreamportrait.systems.dreamportrait.ablations.study import Job

    monkeypatch.setattr(runs, "run", lambda study, say: [Job(ROWS["clip"], 1)])
    (tmp_path / "out").mkdir()
    done = run("--out", tmp_path / "out", "--page", tmp_path / "page.md")
    assert done.exit_code == 1 and "1 failed: clip-seed1; the same command tries them again" in done.output
    assert (tmp_path / "page.md").exists()

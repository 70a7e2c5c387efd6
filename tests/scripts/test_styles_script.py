"""Tests of eval/styles.py from its command line, with tiny networks."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scripts import load_script
from tiny_styles import write_model

from dreamportrait.systems.freestyle.study_page import BEGIN, END

pytestmark = pytest.mark.lengthy
SHORT = ("--styles", "elf", "--faces", "1", "--seeds", "1", "--views", "1", "--tune-steps", "1", "--steps", "0.005")
JUDGES = ("--oracle", "none", "--clip", "mini/clip-b", "--diffusion", "none")


def run(*words: str) -> Result:
    return CliRunner().invoke(load_script("eval/styles.py").main, list(words))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("styles"))


def test_rows_are_measured_and_written_into_a_page(model, tmp_path):
    page = tmp_path / "styles.md"
    page.write_text(f"# Styles\n\n{BEGIN}\nnothing yet\n{END}\n")
    out = tmp_path / "out"
    given = ("--model", str(model), "--rows", "gan-inversion,started", "--out", str(out), *SHORT, *JUDGES)
    done = run(*given, "--page", str(page))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "Table 1: other methods" in text and "nothing yet" not in text and text.startswith("# Styles\n")
    line = next(line for line in text.splitlines() if line.startswith("| 3DGAN-Inv |"))
    assert "0.229" in line and "not run" in line  # the oracle's columns
    assert json.loads((out / "distances.json").read_text())["gan-inversion"]["0"] >= 0
    again = run("--render", "--out", str(out))
    assert again.exit_code == 0 and again.output.strip() == (out / "styles.md").read_text().strip()
    changed = run(*given, "--tune-steps", "2")
    assert changed.exit_code == 1 and "tuning.steps was 1, now it is 2" in changed.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", "i2tt"), "no row 'i2tt'"),
        (("--page", "nowhere.md"), "nowhere.md is not there"),
        (("--render", "--out", "nowhere"), "holds no results"),
        (("--vector", "MODEL"), "its code is 8 x 8; name a model of code_size=1"),
        (("--styles", "wizard"), "style='wizard'"),
    ],
)
def test_wrong_requests_are_refused(model, tmp_path, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = tuple(str(model) if word == "MODEL" else word for word in words)
    done = run("--model", str(model), *SHORT, *JUDGES, *words)
    assert done.exit_code == 1 and message in done.output, done.output
    assert "Traceback" not in done.output


def test_without_options_only_what_is_shipped_is_needed(model, tmp_path):
    done = run("--model", str(model), "--rows", "dreamfusion,started", "--out", str(tmp_path / "out"), *SHORT)
    assert done.exit_code == 0, done.output
    results = {path.name.split("-")[0]: path for path in (tmp_path / "out" / "results").iterdir()}
    assert set(results) == {"started"}  # DreamFusion lacks its model
    assert "clip" not in json.loads(results["started"].read_text())["scores"]

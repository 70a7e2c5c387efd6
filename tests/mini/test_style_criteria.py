"""Tests of the acceptance of the free-style system, with tiny networks and judges that know nothing."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_freestyle as tiny
import torch
from click.testing import CliRunner

from dreamportrait.mini import style_criteria
from dreamportrait.mini.style_criteria import At, HeadsOfW, main, sharp_edits
from dreamportrait.mini.style_criteria_page import COUNTS, CRITERIA, Criterion, render, verdict
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.systems.freestyle.generator import PictureTo3D

ROW = {"style": 0.9, "kept": 0.8, "between_views": 0.04, "kilobytes": 90.0, "seconds": 0.2}


def test_the_table_says_what_is_met_missed_and_not_measured() -> None:
    learnt = {"faces": 50, "elf": ROW, "alien": ROW | {"style": 0.7}}
    instant = {"faces": 50, "shipped": dict.fromkeys(NAMES, ROW), "attributes": {"kept": 0.7, "obeyed": 0.4}}
    page = render({"styles": learnt, "instant": instant, "identity": {"left_out": "needs a judge"}})
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    assert "| 80 % | 85 % | missed |" in lines["9: learnt styles, style read"]
    assert "| 0.2 s | at most 0.1 s | missed |" in lines["9: a photo in a style"]
    assert "| 90 % | 80 % | met |" in lines["10: instructions, styles seen, style read"]
    assert "not measured" in lines["10: one pass of i2t-base, styles seen"]
    assert "not measured" in lines["11: the same person is nearest, 1 of 20"]
    assert "not measured" in lines["1: edits whose change is read"]
    assert set(NAMES) <= set(lines)  # a row for each style
    reported = next(c for c in CRITERIA if c.target is None)
    assert verdict(reported, 0.1) == ""


@pytest.mark.parametrize(("value", "lower", "word"), [(1, False, "met"), (0.9, False, "missed"), (1.1, True, "missed")])
def test_verdicts(value: float, lower: bool, word: str) -> None:
    assert verdict(Criterion("", "", float, 1, "", lower), value) == word


def test_every_part_has_a_count_and_every_criterion_a_part() -> None:
    assert set(COUNTS) == set(style_criteria.MEASURES)
    assert {c.part for c in CRITERIA} <= set(COUNTS)


def test_edits_are_sharp_and_of_the_kind() -> None:
    found = sharp_edits("test", 5, "attribute")
    assert all(not edit.blur and edit.look.style is None for edit in found)
    assert [e.instruction for e in sharp_edits("test", 3)] == [e.instruction for e in sharp_edits("test", 5)[:3]]


@torch.no_grad()
def test_the_heads_of_w_are_the_generator_s() -> None:
    base = tiny.styled()
    made = PictureTo3D(HeadsOfW(base), base.generator).heads(tiny.FRONTS)  # type: ignore[arg-type]
    assert torch.equal(made.ws[:, 0], base.i2t(tiny.FRONTS).w)
    own = base.generator.synthesize_planes(made.ws, noise="const")
    torch.testing.assert_close(made.planes, own, rtol=0, atol=1e-5)


def test_measured_parts_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def mixing(pipe: object, judges: object, at: At) -> dict[str, float]:
        counted.append(at.count)
        return {"largest_step": 1.5, "ends_are_pure": 1.0}

    monkeypatch.setattr(style_criteria, "MEASURES", {"mixing": mixing})
    monkeypatch.setattr(style_criteria, "StylePipeline", SimpleNamespace(from_pretrained=lambda name: None))
    monkeypatch.setattr(style_criteria, "load_judges", lambda *names: None)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{style_criteria.BEGIN}\nold\n{style_criteria.END}\nafter\n")
    for _ in range(2):
        given = ["--parts", "mixing", "--out", str(tmp_path / "out"), "--page", str(page)]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == 0, result.output
    assert counted == [5] and json.loads((tmp_path / "out/mixing.json").read_text())["largest_step"] == 1.5
    assert "| 1.5 | at most 2 | met |" in page.read_text() and "old" not in page.read_text()
    wrong = CliRunner().invoke(main, ["--parts", "nothing"])
    assert wrong.exit_code == 1 and "no part 'nothing'" in wrong.output

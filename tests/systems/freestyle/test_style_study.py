"""Tests of the study of styles: its jobs with tiny networks, what is not made again, its tables and verdicts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_editing import diffusion, editor
from tiny_freestyle import I2T, SIZE, i2t
from tiny_styles import HOW, TUNING, solid
from torch import Tensor, nn

from dreamportrait.core.errors import DataError
from dreamportrait.miniworld.styles import style
from dreamportrait.systems.freestyle import study_rows as rows
from dreamportrait.systems.freestyle.exact import exact_pictures
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.judges import Judges
from dreamportrait.systems.freestyle.study import Job, Steps, Study, Tools, result_path, run
from dreamportrait.systems.freestyle.study_page import BEGIN, END, read_results, render, replaced
from dreamportrait.systems.freestyle.study_scores import distances

SHORT = Steps(1, 1, 1)


class Scorer:
    """Features are mean colours; texts point along the first."""

    def image_features(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(images.mean((2, 3)), dim=1)

    def text_features(self, prompts: list[str]) -> Tensor:
        return torch.eye(3)[:1].expand(len(prompts), -1)


def tools(**more: object) -> Tools:
    return Tools(PictureTo3D(i2t(), solid()), editor(), Judges(None, Scorer()), **more)  # type: ignore[arg-type]


def study(out: Path, chosen: tuple[str, ...], **more: object) -> Study:
    how = replace(HOW, views=1)
    given = {"styles": ("elf",), "faces": 1, "seeds": 1, "few_shot": how, "tuning": replace(TUNING, steps=1)}
    return Study(out, chosen, **(given | more), steps=SHORT)  # type: ignore[arg-type]


@pytest.mark.lengthy
def test_every_row_is_made_and_measured_once(tmp_path):
    vector = PictureTo3D(i2t(replace(I2T, code_size=1)), solid())
    made, given = study(tmp_path, rows.ROWS), tools(prior=diffusion(), vector=vector)
    said: list[str] = []
    run(made, given, said.append)
    assert len(said) == len(rows.ROWS)
    results = {each["row"]: each["scores"] for each in read_results(tmp_path)}
    assert set(results) == set(rows.ROWS)
    heads, edits = {"between_views", "roughness", "clip", "seconds"}, {"between_edits"}
    assert all(set(results[row]) == (edits if row in rows.EDITS else heads) for row in rows.ROWS)
    assert results[rows.I2T]["clip"] != results[rows.UNTRAINED]["clip"]
    assert results[rows.NEW] != results[rows.FIXED] != results[rows.STARTED]
    assert not list((tmp_path / "tunings").iterdir()) and len(list((tmp_path / "sets").glob("*.seconds"))) == 1
    found = distances(made, Scorer(), solid().config, 2)
    assert set(found) == set(rows.HEADS) and all(value[0] >= 0 for value in found.values())
    run(made, given, said.append)
    assert len(said) == len(rows.ROWS)
    path = result_path(tmp_path, Job(rows.I2T, "elf", 0, 0))
    before = json.loads(path.read_text())
    path.unlink()
    run(made, given, said.append)  # only what is missing is made again, and it is the same
    after = json.loads(path.read_text())
    assert len(said) == len(rows.ROWS) + 1
    assert {**before["scores"], "seconds": 0} == {**after["scores"], "seconds": 0}


def test_rows_without_their_model_are_left_out_and_other_settings_refused(tmp_path):
    missing = (rows.DREAMFUSION, rows.VECTOR)
    run(study(tmp_path, missing), tools(), print)
    assert not (tmp_path / "results").exists()
    changed = study(tmp_path, missing, tuning=replace(TUNING, lr=0.5))
    with pytest.raises(ValueError, match=r"tuning\.lr was 0\.002, now it is 0\.5; set it back"):
        run(changed, tools(), print)
    with pytest.raises(ValueError, match="style='wizard'"):
        run(study(tmp_path, missing, styles=("wizard",)), tools(), print)


def result(row: str, seed: int, **scores: float) -> dict[str, object]:
    return {"row": row, "style": "elf", "face": 0, "seed": seed, "scores": scores}


def test_verdicts_follow_the_rules_of_the_ablations():
    """Means over seeds differ by more than their deviation, by less, or the other way round; rows may be missing."""
    made = [result(rows.I2T, seed, clip=value, roughness=0.1, seconds=9.0) for seed, value in enumerate((0.3, 0.32))]
    made += [result(rows.HFGI3D, seed, clip=value, seconds=30.0) for seed, value in enumerate((0.1, 0.12))]
    made += [result(rows.ROUGH, seed, clip=0.3, roughness=value) for seed, value in enumerate((0.05, 0.06))]
    made += [result(rows.WITHOUT, 0, clip=0.2)]
    page = render(made, {rows.I2T: {0: 0.5, 1: 0.7}})
    assert "| CLIP score | I2T better than HFGI3D | holds | 0.2, noise 0.014 |" in page
    assert "| CLIP score | HFGI3D better than DreamFusion | not run |  |" in page
    assert "| seconds | I2T better than HFGI3D | holds | 21, noise 0 |" in page
    assert "| roughness | whole better than without L_dr | does not hold | -0.045, noise 0.005 |" in page
    line = next(line for line in page.splitlines() if line.startswith("| I2T |"))
    assert "0.31 ± 0.014" in line and "0.6 ± 0.14" in line and "0.332" in line
    assert "Measured on 2 faces in 1 styles (elf), 2 seeds." in page


def test_the_page_keeps_what_is_written_by_hand():
    page = f"# Styles\n{BEGIN}\nold\n{END}\nmore\n"
    assert replaced(page, "new\n") == f"# Styles\n{BEGIN}\nnew\n{END}\nmore\n"
    with pytest.raises(DataError, match="lacks the lines"):
        replaced("# Styles\n", "new")


def test_foreign_results_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no results"):
        read_results(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text('{"row": "sculpture", "scores": {}}')
    with pytest.raises(DataError, match="is no result of a study"):
        read_results(tmp_path)


def test_rows_are_chosen_by_name():
    assert rows.choose(None) == rows.ROWS and rows.choose("i2t, started") == ("i2t", "started")
    with pytest.raises(ValueError, match="no row 'i2tt'"):
        rows.choose("i2tt")
    known = {row for table in rows.TABLES for row, _, _ in table.rows}
    assert known == set(rows.ROWS)
    assert all(row in known for table in rows.TABLES for _, order in table.orders for row in order)


def test_exact_pictures():
    made = exact_pictures([style("elf"), style("gold statue")], 1, solid().config)
    assert made.shape == (6, 3, SIZE, SIZE) and made.min() >= -1 and made.max() <= 1
    assert torch.equal(made, exact_pictures([style("elf"), style("gold statue")], 1, solid().config))

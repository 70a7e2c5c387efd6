"""Tests of the stage that learns the shipped styles, with tiny networks."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_styles import HOW, TUNING, WORDS, write_model

from dreamportrait.mini import learnt_styles
from dreamportrait.mini.i2t_any import Parts
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.folder import load_network_of
from dreamportrait.weights.registry import locate


@pytest.mark.lengthy
def test_the_stage_writes_adapters_and_a_stopped_one_continues(tmp_path: Path, monkeypatch) -> None:
    base = write_model(tmp_path)
    parts, given = Parts(base, tmp_path / "editor", locate(WORDS)), {"how": HOW, "settings": TUNING}
    names, learn, calls = ("wooden puppet", "elf"), learnt_styles.learn, []

    def failing(*a, **k):
        calls.append(a)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(*a, **k)

    monkeypatch.setattr(learnt_styles, "learn", failing)
    with pytest.raises(KeyboardInterrupt):
        learnt_styles.learn_all(parts, tmp_path / "styles", tmp_path / "work", names=names, **given)
    assert not (tmp_path / "styles").exists()
    learnt_styles.learn_all(parts, tmp_path / "styles", tmp_path / "work", names=names, **given)
    assert len(calls) == 3
    network = load_network_of(base)
    for name, words in (("wooden-puppet", "a wooden puppet"), ("elf", "an elf")):
        adapter = StyleAdapter.load(tmp_path / "styles" / name)
        adapter.check_base(network)
        assert adapter.about.styles == (words,) and adapter.about.base == "mini"
        assert not (tmp_path / "styles" / name / "sheet.png").exists()
    with Image.open(tmp_path / "styles/sheet.png") as sheet:
        assert sheet.height * 5 == sheet.width * 3  # five faces without a style, and in two
    assert json.loads((tmp_path / "styles/scores.json").read_text())["styles"] == "wooden puppet, elf"

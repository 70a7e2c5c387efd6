"""Tests of the ceilings of the prompt diversity: what is compared with what, and the file."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dreamportrait.mini import ceilings
from dreamportrait.mini.ceilings import LITERAL, Ceiling
from dreamportrait.miniworld import world

FOUND = {LITERAL: Ceiling(0.4, 0.3, 0.7, 1.0, 1.0), "teacher, scale 2": Ceiling(0.2, 0.1, 0.6, 0.9, 0.5)}


@pytest.mark.lengthy
def test_the_literal_answer(tmp_path: Path) -> None:
    """Faces of one prompt must show what it says and differ otherwise."""
    faces = world.load("validation", 3, tmp_path)
    images = ceilings.literal(faces, 3, 2)
    assert images.shape == (6, 3, 64, 64)
    found = ceilings._scorer(faces, 3, 2)(images)
    # Rendered faces show everything; the oracle reads at least 99.8 % of single attributes, and here about 40 of them.
    assert found.said > 0.95 and found.complete > 0.8
    assert 0.05 < found.features < found.across < 1 and found.colors > 0.05
    same = ceilings._scorer(faces, 3, 2)(images[::2].repeat_interleave(2, 0))
    assert same.features == pytest.approx(0, abs=1e-6) and same.colors == 0  # unit vectors in float32


def test_teacher_and_literal_are_scored_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(world, "load", lambda split, count: (split, count))
    monkeypatch.setattr(ceilings, "_scorer", lambda *given: lambda images: seen.append((given, images)) or images)
    monkeypatch.setattr(ceilings, "literal", lambda *given: "literal")
    monkeypatch.setattr(ceilings, "_teacher", lambda *given: lambda scale: f"scale {scale:g}")
    found = ceilings.measure("test", 5, 3)
    assert list(found.values()) == ["literal", "scale 1", "scale 2", "scale 4", "scale 8"]
    assert {given for given, _ in seen} == {(("test", 2000), 5, 3)}


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceilings, "measure", lambda split, prompts, per_prompt: FOUND)
    out = tmp_path / "ceilings.json"
    done = CliRunner().invoke(ceilings.main, ["--out", str(out), "--prompts", "7"])
    assert done.exit_code == 0, done.output
    assert "| rendered as stated | 0.400 | 0.300 | 0.700 | 100.0 % | 100.0 % |" in done.output
    found = json.loads(out.read_text())
    assert (found["dataset"], found["prompts"], found["per_prompt"]) == ("miniworld:validation", 7, 4)
    assert found["ceilings"]["teacher, scale 2"]["complete"] == 0.5
    again = CliRunner().invoke(ceilings.main, ["--out", str(out)])
    assert again.exit_code == 1 and "exists; name another file, or remove it" in again.output


@pytest.mark.lengthy
def test_the_teacher_samples_every_caption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceilings, "STEPS", 2)
    faces = world.load("validation", 2, tmp_path)
    images = ceilings._teacher(faces, 2, 2)(2.0)
    assert images.shape == (4, 3, 64, 64) and not torch.equal(images[0], images[1])

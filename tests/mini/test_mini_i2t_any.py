"""Tests of the stage that tunes the image-to-triplane network to many styles, with tiny networks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_freestyle as tiny
import torch
from tiny_styles import HOW, TUNING, WORDS, write_model

from dreamportrait.geometry.images import as_saved
from dreamportrait.mini.i2t_any import Parts, train_any
from dreamportrait.systems.freestyle.database import UNEDITED, joined, turned, unedited
from dreamportrait.systems.freestyle.folder import load_network_of, read_model
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import locate


def test_unedited_heads_are_the_generator_s_own_views() -> None:
    generator = tiny.generator()
    made = unedited(generator, HOW)
    assert made.styles == [UNEDITED] * 2 and made.seeds == [0, 1] and made.pixels.shape[:2] == (2, 3)
    views = made.heads(generator).views(made.cameras)[1]
    torch.testing.assert_close(made.images[1], as_saved(views.colors), atol=1e-6, rtol=0)
    assert float(made.saturated.sum()) == 0


def test_sets_are_joined_in_order() -> None:
    first, second = tiny.few_shot(2), replace(tiny.few_shot(3), styles=["b", "c", "d"], seeds=[7, 8, 9])
    both = joined([first, second])
    assert both.seeds == [0, 1, 7, 8, 9] and both.styles == ["style 0", "style 1", "b", "c", "d"]
    assert torch.equal(both.pixels[2:], second.pixels) and both.saturated.shape == (5, 3)
    with pytest.raises(ValueError, match="another truncation cannot be joined"):
        joined([first, replace(second, truncation=0.5)])
    assert [turned(HOW, n).seed for n in range(3)] == [0, 2, 4]  # two identities of each style


@pytest.mark.lengthy
def test_the_stage_writes_a_network_for_edited_fronts(tmp_path: Path) -> None:
    base = write_model(tmp_path)
    parts = Parts(base, tmp_path / "editor", locate(WORDS))
    given = {"styles": ("elf", "alien"), "how": HOW, "settings": replace(TUNING, train="all", input="edited")}
    train_any(parts, tmp_path / "any", tmp_path / "work", **given)
    network = load_network_of(tmp_path / "any")
    assert weights_hash(network) != weights_hash(load_network_of(base))
    assert read_model(tmp_path / "any").tuning == TUNING  # the defaults of learning stay those of the base
    assert json.loads((tmp_path / "any/scores.json").read_text())["identities"] == 6  # two styles, and unedited heads

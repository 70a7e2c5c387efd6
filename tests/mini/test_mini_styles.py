"""Tests of the shipped free-style network and styles."""

import pytest
import torch

from dreamportrait import StylePipeline
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.systems.freestyle.adapter import DELTAS, StyleAdapter
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.judges import NONE, ORACLE, load_judges
from dreamportrait.systems.freestyle.names import shipped_styles
from dreamportrait.systems.freestyle.unseen import unseen_scores

FIRST = 4_000_000  # seed of the first face


@pytest.fixture(scope="module")
def pipe() -> StylePipeline:
    return StylePipeline.from_pretrained("mini")


def test_every_style_of_the_miniature_world_is_shipped(pipe: StylePipeline) -> None:
    folders = shipped_styles()
    assert set(folders) == {f"mini/styles/{name.replace(' ', '-')}" for name in NAMES}
    for folder in folders.values():
        adapter = StyleAdapter.load(folder)
        adapter.check_base(pipe.base.i2t)
        assert adapter.about.input == "source"  # applying needs no editor
        assert (folder / DELTAS).stat().st_size <= 200_000


@pytest.mark.lengthy
@torch.no_grad()
def test_a_style_is_seen_from_the_front(pipe: StylePipeline) -> None:
    """Most of some faces are read as a gold statue, and none of them before the style."""
    reader = load_judges(ORACLE, NONE).reader
    assert reader is not None
    camera = pipe.base.generator.config.around([0.0])
    fronts = draw_heads(pipe.base.generator, range(FIRST, FIRST + 6), 1.0).view(camera.expand(6, -1)).image.clamp(-1, 1)
    adapter = pipe.style("mini/styles/gold-statue")
    found = unseen_scores(pipe, adapter, load_judges(ORACLE, NONE), range(FIRST, FIRST + 6))
    assert found["style"] >= 0.5 and "gold statue" not in reader.read(fronts).styles


@pytest.mark.slow  # three minutes of a core
def test_learning_a_style_reaches_faces_that_it_did_not_see(pipe: StylePipeline) -> None:
    gold = pipe.learn("a gold statue", seed=FIRST)
    assert unseen_scores(pipe, gold, load_judges(ORACLE, NONE), range(FIRST + 100, FIRST + 120))["style"] >= 0.6

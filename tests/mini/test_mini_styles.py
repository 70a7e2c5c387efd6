"""Tests of the shipped free-style models on faces that nothing was trained on."""

import pytest

from dreamportrait import StylePipeline
from dreamportrait.systems.freestyle.judges import NONE, ORACLE, Judges, load_judges
from dreamportrait.systems.freestyle.unseen import instant_scores, unseen_scores

FIRST = 4_000_000  # seed of the first face


@pytest.fixture(scope="module")
def pipe() -> StylePipeline:
    return StylePipeline.from_pretrained("mini")


@pytest.fixture(scope="module")
def judges() -> Judges:
    return load_judges(ORACLE, NONE)


@pytest.mark.lengthy
def test_an_instruction_makes_faces_gold_statues(pipe: StylePipeline, judges: Judges) -> None:
    assert instant_scores(pipe, "a gold statue", judges, range(FIRST, FIRST + 5))["style"] >= 0.4


@pytest.mark.slow  # three minutes of a core
def test_learning_a_style_reaches_faces_that_it_did_not_see(pipe: StylePipeline, judges: Judges) -> None:
    gold = pipe.learn("a gold statue", seed=FIRST)
    assert unseen_scores(pipe, gold, judges, range(FIRST + 100, FIRST + 120))["style"] >= 0.6

"""Tests of the shipped free-style models on faces that nothing was trained on."""

import pytest

from dreamportrait import StylePipeline
from dreamportrait.mini.i2t_any import KNOWN
from dreamportrait.miniworld.grammar import an
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.judges import NONE, ORACLE, Judges, load_judges
from dreamportrait.systems.freestyle.names import shipped_styles
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
    assert instant_scores(pipe, "a gold statue", judges, range(FIRST, FIRST + 5))["style"] >= 0.8


@pytest.mark.lengthy
def test_an_instruction_lets_ears_grow_and_shows_a_style_that_was_held_out(pipe: StylePipeline, judges: Judges) -> None:
    """One pass alone gives 6 % of elves and 40 % of clay figures."""
    for words in ("an elf", "a clay figure"):
        assert instant_scores(pipe, words, judges, range(FIRST, FIRST + 4))["style"] >= 0.5


def test_shipped_styles_need_no_editor(pipe: StylePipeline, judges: Judges) -> None:
    styles = {name: StyleAdapter.load(folder) for name, folder in shipped_styles().items()}
    assert len(styles) == len(KNOWN) and not {style.about.styles[0] for style in styles.values()} - set(map(an, KNOWN))
    for style in styles.values():
        style.check_base(pipe.base.i2t)
        assert style.about.input == "source"
    for name in ("gold-statue", "elf"):
        found = unseen_scores(pipe, styles[f"mini/styles/{name}"], judges, range(FIRST, FIRST + 5))
        assert found["style"] >= 0.7 and found["kept"] >= 0.6


@pytest.mark.slow  # three minutes of a core
def test_learning_a_style_reaches_faces_that_it_did_not_see(pipe: StylePipeline, judges: Judges) -> None:
    gold = pipe.learn("a gold statue", seed=FIRST)
    assert unseen_scores(pipe, gold, judges, range(FIRST + 100, FIRST + 120))["style"] >= 0.6

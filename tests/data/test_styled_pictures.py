"""Tests of data sets of styled heads, by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from dreamportrait.core.errors import DataError
from dreamportrait.data import sources
from dreamportrait.data.names import FACES, check_source, is_styled, is_world
from dreamportrait.data.styled import StyledPictures
from dreamportrait.miniworld import styled_world


def test_pictures_are_those_of_the_world(tmp_path: Path) -> None:
    pictures, world = StyledPictures("test", 6, str(tmp_path)), styled_world.load("test", 6, tmp_path)
    assert len(pictures) == 6 and pictures.resolution == 64 and pictures.cameras.shape == (6, 25)
    for i in range(6):
        assert np.array_equal(pictures.image(i), world.images[i])
        assert pictures.captions(i) == world.captions(i)
        assert pictures.evaluation_caption(i) == world.evaluation_caption(i)
        assert pictures.evaluation_facts(i) == world.evaluation_facts(i)
    again = pickle.loads(pickle.dumps(pictures))  # as worker processes of a loader do
    assert np.array_equal(again.image(5), pictures.image(5))


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(sources, "StyledPictures", lambda split, count: asked.append((split, count)))
    for split in FACES:
        check_source(f"styled:{split}")
        sources.open_pictures(f"styled:{split}", count=1500)
    assert asked == [("validation", 2000), ("test", 2000), ("combinations", 1500)]
    assert is_styled("styled:test") and not is_world("styled:test") and not is_styled("miniworld:test")
    with pytest.raises(DataError, match="no split 'best'; must be one of .*styled:validation, styled:test"):
        check_source("styled:best")

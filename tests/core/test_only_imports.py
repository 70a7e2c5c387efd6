"""Tests of only_imports: what a fresh process imports is no matter of garbage collection, and nothing else changes."""

import gc
import sys

import pytest

from dreamportrait.core.imports import only_imports


@pytest.fixture(autouse=True)
def _frozen_as_before():
    """What conftest.py has frozen stays so, and the garbage of the tests here does not."""
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def test_a_fresh_process(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    with only_imports():
        assert not gc.isenabled()
        made = [[]]
    assert gc.isenabled() and gc.get_freeze_count() > before
    assert not any(each is made for each in gc.get_objects())


def test_an_import_that_fails(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ImportError), only_imports():
        raise ImportError
    assert gc.isenabled()


def test_a_process_that_works_already():
    assert "torch" in sys.modules
    before = gc.get_freeze_count()
    with only_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() <= before

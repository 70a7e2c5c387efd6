"""Tests of results that a study keeps, so that it can be interrupted."""

from pathlib import Path
from typing import Any

import pytest

from dreamportrait.core.errors import DataError
from dreamportrait.mini.head.kept import check_settings, each


def test_runs_are_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def run(i: int) -> dict[str, Any]:
        if i == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(i)
        return {"i": i}

    with pytest.raises(KeyboardInterrupt):
        each(tmp_path / "runs", 4, run)
    made.append(-1)
    assert each(tmp_path / "runs", 4, run) == [{"i": 0}, {"i": 1}, {"i": 2}, {"i": 3}]
    assert made == [0, 1, -1, 2, 3]
    assert len(each(tmp_path / "runs", 2, run)) == 2


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    check_settings(tmp_path, {"steps": 3})
    check_settings(tmp_path, {"steps": 3})
    with pytest.raises(DataError, match="holds results of {'steps': 3}, not of {'steps': 4}; name another folder"):
        check_settings(tmp_path, {"steps": 4})

"""Fixtures of the fault tests: sources, an undisturbed run, and a record of what each fault costs.

FAULTS_RESULTS names a JSON file for the record; `make test-faults` sets it, and docs/reliability.md shows it.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import undisturbed_run
from toy_run import write_sources

Record = Callable[..., None]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def undisturbed(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the last checkpoint of a run of two processes to which nothing happens."""
    return undisturbed_run(2, sources, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def alone(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the last checkpoint of a run of one process to which nothing happens."""
    return undisturbed_run(1, sources, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def record() -> Iterator[Record]:
    """Return a function that notes what a fault cost: its name and measured values."""
    found: dict[str, dict[str, Any]] = {}

    def note(fault: str, **values: Any) -> None:
        found[fault] = {key: round(x, 1) if isinstance(x, float) else x for key, x in values.items()}
        print(f"\n{fault}: {found[fault]}")

    yield note
    # After each file of tests, so that a run that is stopped has left what it found.
    if path := os.environ.get("FAULTS_RESULTS"):
        before = json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).exists() else {}
        Path(path).write_text(json.dumps(before | found, indent=2) + "\n", encoding="utf-8")

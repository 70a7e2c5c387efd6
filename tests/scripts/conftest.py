"""A finished training on toy networks, which several files of tests look at and continue."""

from pathlib import Path

import pytest
from toy_run import write_sources
from train_script import trained


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def finished(sources, tmp_path_factory) -> Path:
    return trained(sources, tmp_path_factory.mktemp("finished"))

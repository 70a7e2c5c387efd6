"""Fixtures of the viewer's tests: the shipped model, a viewer, and users that speak its protocol."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest

from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

if TYPE_CHECKING:
    from benchmarks.viewer import User
    from dreamportrait.viewer.server import Viewer


@pytest.fixture(scope="module")
def pipe() -> DreamPortraitPipeline:
    made = DreamPortraitPipeline.from_pretrained("mini")
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def viewer(pipe: DreamPortraitPipeline) -> "Iterator[Viewer]":
    from dreamportrait.systems.freestyle.pipeline import StylePipeline
    from dreamportrait.viewer.server import Viewer

    with Viewer(pipe, port=0, users=6, styles=cache(lambda: StylePipeline.from_pretrained("mini"))) as made:
        yield made


@pytest.fixture
def join(viewer: "Viewer") -> "Iterator[Callable[[], User]]":
    """Return a function that adds a user who sees the first picture."""
    from viewer_users import wait

    from benchmarks.viewer import User

    users = []

    def new() -> User:
        users.append(User(viewer.address))
        users[-1].wait(lambda u: "Download" in u.controls and len(u.pictures) > 1)
        return users[-1]

    yield new
    for user in users:
        user.close()
    wait(lambda: viewer.users == 0)

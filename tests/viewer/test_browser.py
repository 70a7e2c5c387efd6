"""Tests of the viewer in headless Chromium: type, generate, drag, mix, download, and what wrong input gets.

The variable SCREENSHOTS names a folder that keeps a screenshot of every step.
"""

import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser")

from chromium import opened
from viewer_page import Page, distance

from dreamportrait.export.provenance import inspect
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.systems.freestyle.pipeline import StylePipeline
from dreamportrait.viewer import session
from dreamportrait.viewer.server import Viewer

pytestmark = pytest.mark.slow

MIDDLE = (438.0, 330.0)  # of the picture, in a window of 1200 x 800 pixels
SMALL = (50, 0, 260, 260)  # edges of a picture's middle in a window of 640 x 420 pixels


def redness(pixels: np.ndarray) -> float:
    """Return the share of pixels with the colour of red hair."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return float(((red > 150) & (green < 110) & (blue < 70)).mean())


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    with Viewer(pipe, port=0, styles=functools.cache(lambda: StylePipeline.from_pretrained("mini"))) as made:
        yield made


@pytest.fixture
def page(viewer: Viewer, tmp_path: Path) -> Iterator[Page]:
    with opened(tmp_path) as tab:
        tab.open(viewer.address)
        made = Page(tab, tmp_path)
        made.arrive()
        yield made
        assert not tab.errors, tab.errors
        assert all(url.startswith((viewer.address, "data:", "blob:")) for url in tab.requests), tab.requests


def test_type_and_generate(page: Page) -> None:
    first = page.picture()
    page.keep("start")
    assert redness(first) > 0.04
    page.type("Prompt", "a bald man with a beard")
    page.press("Generate")
    man = page.changed(first)
    page.keep("generated")
    assert redness(man) < 0.02
    page.type("Prompt", "a woman with red hair")
    page.tab.press("Enter", 13)
    assert distance(page.changed(man), first) < 1  # JPEG is decoded alike


def test_an_instruction_restyles_the_head(page: Page) -> None:
    first = page.picture()
    page.type("Restyle", "turn the head into a gold statue")
    page.press("Generate")
    gold = page.changed(first)
    page.keep("restyled")
    assert distance(gold, first) > 5


def test_drag_turns_the_head_and_the_wheel_enlarges_it(page: Page) -> None:
    front = page.picture()
    page.tab.drag(MIDDLE, (MIDDLE[0] + 40, MIDDLE[1]))
    right = page.changed(front)
    page.keep("dragged")
    page.tab.drag(MIDDLE, (MIDDLE[0] - 80, MIDDLE[1]))
    left = page.changed(right)
    # Dragging to the right turns the face to the viewer's right, so that the chin and the mouth move there.
    assert middle_of_mouth(left) < middle_of_mouth(front) - 5 < middle_of_mouth(right) - 10
    page.tab.drag(MIDDLE, (MIDDLE[0] + 40, MIDDLE[1]))
    again = page.changed(left)
    for _ in range(5):
        page.tab.scroll(*MIDDLE, -120)
        time.sleep(0.1)
    assert redness(page.changed(again)[:200]) != pytest.approx(redness(again[:200]), abs=0.01)
    page.keep("enlarged")


def middle_of_mouth(pixels: np.ndarray) -> float:
    """Return the column of the dark red pixels in the lower half, where lips are."""
    red, green, blue = pixels[380:560, :, 0], pixels[380:560, :, 1], pixels[380:560, :, 2]
    return float(np.nonzero((red > 100) & (green < 45) & (blue < 60))[1].mean())


def test_beyond_the_trained_range(page: Page) -> None:
    front = page.picture()
    page.tab.drag(MIDDLE, (MIDDLE[0] + 150, MIDDLE[1]))
    stopped = page.changed(front)
    page.wait_for_text("as far as the training went")
    page.keep("stopped")
    page.tab.click(*page.control("Beyond training"))
    page.changed(stopped)
    page.wait_for_text("holes and ghosts appear")
    page.keep("beyond")


def test_mixing_and_history(page: Page) -> None:
    first = page.picture()
    page.type("Mix with", "an old man with a hat")
    page.press("Generate")
    half = page.changed(first)
    page.slide("Mix", 60)
    second = page.changed(half)
    page.slide("Mix", -130)
    assert distance(page.changed(second), first) < 3
    page.keep("mixed")
    page.press("2")
    page.tab.wait("[...document.querySelectorAll('input')].every(each => each.value !== 'an old man with a hat')")


def test_depth_and_normals(page: Page) -> None:
    color = page.picture()
    page.choose("Show", "Depth")
    depth = page.changed(color)
    page.keep("depth")
    assert np.abs(depth - depth.mean(-1, keepdims=True)).mean() < 3  # grey
    page.choose("Show", "Normals")
    page.changed(depth)
    page.keep("normals")


def test_splats_lie_where_the_picture_shows_the_head(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a graphics card, browsers need seconds for a picture of many splats in a large window.
    monkeypatch.setattr(session, "make_splats", functools.partial(session.make_splats, count=20_000))
    with opened(tmp_path, 640, 420) as tab:
        tab.open(viewer.address)
        page, middle = Page(tab, tmp_path, SMALL), (160.0, 120.0)
        front = page.arrive()
        tab.drag(middle, (middle[0] + 20, middle[1]))
        turned = page.changed(front)
        page.choose("Show", "Splats")
        splats = page.changed(turned, 60)
        page.keep("splats")
        assert distance(splats, turned) < 0.7 * distance(splats, front)
        tab.drag(middle, (middle[0] - 20, middle[1]))
        again = page.changed(splats, 60)
        page.keep("splats_front")
        assert distance(again, front) < 0.7 * distance(again, turned)


def test_download(page: Page) -> None:
    folder = page.folder / "downloads"
    page.tab.keep_downloads(folder)
    page.press("Download")
    end = time.monotonic() + 30
    while not (folder / "portrait-0.png").exists():
        assert time.monotonic() < end, page.tab.text()
        time.sleep(0.2)
    found = inspect(folder / "portrait-0.png")
    assert found is not None and found.claim.model == "mini"
    if kept := os.environ.get("SCREENSHOTS"):
        shutil.copy(folder / "portrait-0.png", Path(kept) / "download.png")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "an empty prompt asks for nothing"),
        ("long " * 2000, "a prompt of 10000 characters"),
        ("a man in Klingon armour", "the model does not know the words"),
        ("<img src=x onerror=document.title=1>" * 100, "'<img src=x onerror=document.ti'"),
    ],
)
def test_what_prompts_get_said(page: Page, prompt: str, message: str) -> None:
    page.type("Prompt", prompt)
    page.press("Generate")
    page.wait_for_text(message)
    page.keep("said-" + "".join(filter(str.isalpha, prompt))[:5])
    assert page.tab.evaluate("document.title") != "1"
    before = page.picture()
    page.type("Prompt", "a bald man with a beard")
    page.press("Generate")
    page.changed(before)


def test_two_people(viewer: Viewer, page: Page, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with opened(tmp_path / "other") as tab:
        tab.open(viewer.address)
        other = Page(tab, tmp_path / "other")
        other.wait_for_text("Truncation")
        wait(lambda: viewer.users == 2)
        mine = page.picture()
        other.type("Prompt", "a bald man with a beard")
        other.press("Generate")
        other.wait_for_text("Truncation")
        time.sleep(2)
        assert distance(page.picture(), mine) < 0.1
    wait(lambda: viewer.users == 1)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)

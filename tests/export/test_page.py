"""Tests of the page that turns a head offline: its file, and what it does in headless Chromium without a network."""

import base64
import io
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Tab, opened
from PIL import Image
from tiny_portraits import GENERATOR, plain

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export import page
from dreamportrait.export.page import Page, save_page
from dreamportrait.export.progress import silent
from dreamportrait.export.provenance import Claim, verify
from dreamportrait.geometry.images import to_bytes

CLAIM = Claim(model="tiny", model_sha256="0" * 64)


@pytest.fixture(scope="module")
def head() -> Planes:
    generator = plain()
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    ws = generator.map(z, GENERATOR.around([0.0]))
    with torch.no_grad():
        return Planes(generator, generator.synthesize_planes(ws), ws)


def parts(path: Path) -> tuple[dict, bytes, dict]:
    """Return the facts, the picture and the statement of origin of a page."""
    text = path.read_text()
    facts = json.loads(re.search("const facts = ({.*?}),", text)[1])
    picture = base64.b64decode(re.search('data:image/webp;base64,([^"]*)"', text)[1])
    origin = json.loads(re.search('id="provenance">(.*?)</script>', text)[1])
    return facts, picture, origin


def test_views_lie_on_the_grid(head: Planes, tmp_path: Path) -> None:
    path, shares = tmp_path / "head.html", []
    made = save_page(head, path, title="a man", claim=CLAIM, report=shares.append)
    assert made == Page(21, 9, 16, path.stat().st_size)  # photographs: 30 and 10 degrees, in steps of 3 and 2.5
    assert len(shares) == 21 * 9 and shares == sorted(shares) and shares[0] == 0 and shares[-1] < 1
    facts, picture, origin = parts(path)
    assert facts == {"columns": 21, "rows": 9, "size": 16, "yaw": 30.0, "pitch": 10.0}
    assert origin == CLAIM.extras()
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (21 * 16, 9 * 16)


def test_yaw_grows_to_the_right_and_pitch_downwards(head: Planes) -> None:
    sheet = np.asarray(page._grid(head, [-30.0, 0.0, 30.0], [-10.0, 10.0], 16, silent))
    for column, row, yaw, pitch in ((0, 0, -30.0, -10.0), (2, 0, 30.0, -10.0), (1, 1, 0.0, 10.0)):
        with torch.no_grad():
            expected = to_bytes(head.view(head.generator.config.around([yaw], pitch)).image)[0]
        assert np.array_equal(sheet[16 * row : 16 * row + 16, 16 * column : 16 * column + 16], expected)


def test_the_page_and_the_picture_in_it_carry_the_claim(head: Planes, tmp_path: Path) -> None:
    save_page(head, tmp_path / "head.html", title="a man", claim=CLAIM)
    (tmp_path / "views.webp").write_bytes(parts(tmp_path / "head.html")[1])
    assert verify(tmp_path / "views.webp") == verify(tmp_path / "head.html") == CLAIM
    save_page(head, tmp_path / "silent.html", title="a man", claim=None)
    text = (tmp_path / "silent.html").read_text()
    assert verify(tmp_path / "silent.html") is None
    assert "Made by AI" not in text and 'id="provenance">{}</script>' in text


def test_titles_are_text(head: Planes, tmp_path: Path) -> None:
    save_page(head, tmp_path / "head.html", title='<script>alert("1")</script> $facts', claim=None)
    text = (tmp_path / "head.html").read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; $facts" in text


def test_what_is_refused_before_anything_is_drawn(
    head: Planes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(Planes, "view", None)
    with pytest.raises(ValueError, match="must end in .html"):
        save_page(head, tmp_path / "head.png", title="", claim=None)
    with pytest.raises(FileExistsError, match="there.html exists; name another file"):
        save_page(head, tmp_path / "there.html", title="", claim=None)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_page(head, tmp_path / "folder.html", title="", claim=None)
    with pytest.raises(ValueError, match="size=2000: must be within 16 .. 780; the page holds 21 views"):
        save_page(head, tmp_path / "head.html", title="", claim=None, size=2000)
    twice = Planes(head.generator, head.planes.expand(2, -1, -1, -1, -1), head.ws.expand(2, -1, -1))
    with pytest.raises(ValueError, match="2 heads: a page shows one"):
        save_page(twice, tmp_path / "head.html", title="", claim=None)
    assert (tmp_path / "there.html").read_text() == "mine" and not (tmp_path / "head.html").exists()


def test_an_interrupted_page_leaves_nothing(head: Planes, tmp_path: Path) -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_page(head, tmp_path / "head.html", title="", claim=None, report=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_page_turns_the_head_without_a_network(tmp_path: Path) -> None:
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

    portrait = DreamPortraitPipeline.from_pretrained("mini")("a woman with red hair", seed=0)
    made = save_page(portrait.head, tmp_path / "head.html", title=portrait.prompt, claim=portrait.claim)
    assert made.bytes < 300_000
    with opened(tmp_path, 600, 750) as tab:
        tab.offline()
        tab.open(f"file://{tmp_path / 'head.html'}")
        tab.wait("document.body?.dataset.ready === 'yes'")
        front = shot(tab, tmp_path / "front.png")
        tab.drag((300, 250), (400, 250))
        right = shot(tab, tmp_path / "right.png")
        assert tab.evaluate("Number(document.querySelector('canvas').dataset.yaw)") < -15
        assert mouth(right) > mouth(front) + 10  # the face turns with the hand
        tab.drag((300, 250), (300, 450))
        assert tab.evaluate("document.querySelector('canvas').dataset.pitch") == "7.3"  # as far as the training went
        assert difference(shot(tab, tmp_path / "above.png"), right) > 2
        tab.scroll(300, 250, -300)
        assert tab.wait("Number(document.querySelector('canvas').dataset.zoom) > 1.5")
        tab.click(300, 250)
        tab.click(300, 250, count=2)
        assert difference(shot(tab, tmp_path / "again.png"), front) < 0.1
        tab.press("ArrowLeft", 37)
        assert mouth(shot(tab, tmp_path / "left.png")) < mouth(front)
        assert not tab.errors
        assert all(url.startswith(("file:", "data:")) for url in tab.requests), tab.requests
    if kept := os.environ.get("SCREENSHOTS"):
        for name in ("front", "right", "above"):
            shutil.copy(tmp_path / f"{name}.png", Path(kept) / f"page_{name}.png")


def shot(tab: Tab, path: Path) -> np.ndarray:
    time.sleep(0.3)  # more than a frame
    with Image.open(tab.screenshot(path)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def mouth(pixels: np.ndarray) -> float:
    """Return the middle column of the lips, the dark red in the lower half of the picture."""
    middle = pixels[len(pixels) // 3 : 2 * len(pixels) // 3]
    red, green, blue = middle[..., 0], middle[..., 1], middle[..., 2]
    return float(np.nonzero((red > 100) & (green < 45) & (blue < 60))[1].mean())

"""Tests that the Python examples of the README and the documents run as printed."""

import re
from pathlib import Path

import pytest
from places import ROOT

from dreamportrait import DreamPortraitPipeline

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
]
LINKS = [
    pytest.param(page.parent / link.partition("#")[0], id=f"{page.stem}: {link}")
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
    for link in re.findall(r"\]\(([^)#][^)]*)\)", page.read_text(encoding="utf-8"))
    if not link.startswith("http")
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("block", BLOCKS)
def test_example(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for steps in ("steps", "tuning_steps"):  # a photo takes a minute with the usual ones
        monkeypatch.setitem(DreamPortraitPipeline.invert.__kwdefaults__, steps, 3)
    names: dict = {}
    exec(block, names)
    for file in re.findall(r'save\w*\("([^"]+)"', block):
        assert (tmp_path / file).stat().st_size > 0
    if "portrait" in names:
        assert names["portrait"].images.shape == (5, 64, 64, 3)
    elif "views" in names:
        assert [list(part.shape) for part in names["views"][2]] == [
            [1, 3, 512, 512],
            [1, 3, 32, 32],
            [1, 1, 32, 32],
            [1, 1, 32, 32],
        ]
    elif "image" in names:
        assert [list(part.shape) for part in names["image"]] == [[1, 4096, 32], [1, 4096, 1], [1, 4096, 1]]
    elif "picture" in names:
        assert names["picture"].image.shape == (128, 128, 3)
        assert names["generator"].config.image_resolution == 64
    elif "x" in names:
        assert names["x"].shape == (1, 64, 64, 64)


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_to_files(target: Path) -> None:
    assert target.exists()

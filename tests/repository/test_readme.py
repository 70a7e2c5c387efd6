"""Tests that the Python examples of the README run as printed."""

import re

import pytest
from places import ROOT

README = ROOT / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
@pytest.mark.lengthy
def test_example(block: str) -> None:
    names: dict = {}
    exec(block, names)
    if "views" in names:
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
    else:
        assert names["x"].shape == (1, 64, 64, 64)

"""Tests of rendering by several processes: the same faces, also from a script without a main guard."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from dreamportrait.miniworld import rendering
from dreamportrait.miniworld.attributes import sample_codes
from dreamportrait.miniworld.world import random_cameras

# It has no `if __name__ == "__main__"`, and starts processes all the same.
SCRIPT = """
from dreamportrait.miniworld import rendering
from dreamportrait.miniworld.attributes import sample_codes
from dreamportrait.miniworld.world import random_cameras

rendering._CHUNK_PIXELS = 16 * 16 * 20
chunks = rendering.rendered(sample_codes(45, seed=5), random_cameras(45, seed=5), 16, 2)
print([len(images) for images, _ in chunks])
"""


@pytest.mark.lengthy
def test_processes_render_the_same_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_CHUNK_PIXELS", 16 * 16 * 20)
    codes, cameras = sample_codes(45, seed=5), random_cameras(45, seed=5)
    alone, shared = (list(rendering.rendered(codes, cameras, 16, workers)) for workers in (1, 2))
    assert [len(images) for images, _ in alone] == [20, 20, 5]
    for one, other in zip(alone, shared, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"a process that renders faces ended with 1: (.|\n)*Error"):
        rendering._render_apart(np.zeros((2, 3)), np.zeros((2, 25)), rendering.plain_looks(2), 16)


@pytest.mark.lengthy
def test_a_plain_script_renders_in_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DREAMPORTRAIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[20, 20, 5]\n", "")

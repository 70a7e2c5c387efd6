"""Tests of few-shot sets: their cameras, their pictures, and builds that were stopped."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from tiny_editing import editor
from tiny_freestyle import GENERATOR, SIZE, generator

from dreamportrait.data.folder import ImageFolder
from dreamportrait.eg3d.planes import camera_angles
from dreamportrait.systems.freestyle import fewshot
from dreamportrait.systems.freestyle.fewshot import FewShotSettings, build, draw_heads, grid, load
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling

SETTINGS = FewShotSettings(
    identities=2, views=4, yaw=25, pitch=7, truncation=1, seed=3, batch=2, sampling=Sampling(steps=2, text_scale=3)
)
STYLES = ["a wizard", "an old wizard"]


def test_the_front_is_picture_0():
    """The paper's 100 views do not contain the front."""
    settings = FewShotSettings(identities=1, views=100)
    angles = camera_angles(settings.cameras(GENERATOR), (0, 0, 0))  # the sphere of `orbit` is around the origin
    assert angles.shape == (101, 2) and torch.allclose(angles[0], torch.zeros(2), atol=1e-3)
    assert torch.equal(settings.cameras(GENERATOR)[0], GENERATOR.around([0.0])[0])
    yaws, pitches = (sorted({round(float(a), 2) for a in column}) for column in angles[1:].unbind(1))
    expected = [round(-30 + 60 / 9 * i, 2) for i in range(10)]
    # Angles go through the positions of cameras in single precision.
    assert yaws == pytest.approx(expected, abs=0.02) and pitches == pytest.approx(expected, abs=0.02)
    assert len({(round(float(y), 1), round(float(p), 1)) for y, p in angles[1:]}) == 100


def test_grids():
    assert [grid(n) for n in (1, 4, 7, 10, 12, 100)] == [(1, 1), (2, 2), (1, 7), (2, 5), (3, 4), (10, 10)]


@pytest.mark.lengthy
def test_the_set_is_an_ordinary_data_set(tmp_path):
    counted: list[int] = []
    made = build(generator(), editor(), STYLES, SETTINGS, tmp_path / "set", report=counted.append)
    data = ImageFolder(tmp_path / "set")
    assert len(data) == 10 and data.resolution == SIZE and counted == [2, 2, 1, 2, 2, 1]
    assert data.captions == [["a wizard"]] * 5 + [["an old wizard"]] * 5
    assert torch.allclose(data.cameras, made.cameras.repeat(2, 1))
    assert not (tmp_path / "set.unfinished").exists()
    again = load(tmp_path / "set", generator())
    assert torch.equal(again.pixels, made.pixels) and torch.equal(again.cameras, made.cameras)
    assert (again.styles, again.seeds, again.truncation) == (STYLES, [3, 4], 1)
    assert torch.equal(again.saturated, made.saturated) and made.saturated.shape == (2, 5)
    assert again.fronts.shape == (2, 3, SIZE, SIZE) and torch.equal(again.fronts, again.images[:, 0])


@pytest.mark.lengthy
def test_pictures_are_edits_of_the_same_head_from_the_same_noise(tmp_path):
    made, edit = build(generator(), editor(), STYLES, SETTINGS, tmp_path / "set"), editor()
    head = draw_heads(generator(), [4], 1)
    (views,) = head.views(made.cameras)
    told = SETTINGS.wording.instruct("an old wizard")
    expected, saturated = edit.edit(views.colors, told, edit.fixed_noise(4), SETTINGS.sampling)
    assert float(saturated.max()) > 0
    torch.testing.assert_close(made.saturated[1], saturated, rtol=0, atol=0.005)  # of 768 numbers, in four decimals
    # Rounding to bytes, and sums in another order for another size of batches.
    assert (made.images[1] - expected).abs().max() < 2 / 127
    assert torch.equal(made.heads(generator())[1].planes, head.planes)


class Stopped(Exception):
    pass


class Failing:
    """An editor that fails at a call."""

    def __init__(self, at: int) -> None:
        self.calls, self.at, self.real = 0, at, editor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def edit(self, *given: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise Stopped
        return self.real.edit(*given)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.lengthy
def test_a_stopped_build_continues_to_the_bit(tmp_path):
    build(generator(), editor(), STYLES, SETTINGS, tmp_path / "whole")
    failing: Any = Failing(5)
    with pytest.raises(Stopped):
        build(generator(), failing, STYLES, SETTINGS, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    again: Any = Failing(100)
    build(generator(), again, STYLES, SETTINGS, tmp_path / "set")
    assert again.calls == 2  # of six
    assert files(tmp_path / "set") == files(tmp_path / "whole")
    none: Any = Failing(1)
    build(generator(), none, STYLES, SETTINGS, tmp_path / "set")  # it is there, and is read
    assert none.calls == 0


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_fewshot import SETTINGS, STYLES, build, editor, fewshot, generator
replace, calls = os.replace, []
def kill(source, target):
    calls.append(target)
    if len(calls) == 4:  # the plan, two parts, and the third, which is written and not yet renamed
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
build(generator(), editor(), STYLES, SETTINGS, Path(sys.argv[1]))
"""


@pytest.mark.slow  # starts a process; a build that an error stops is tested above
def test_a_killed_build_continues_to_the_bit(tmp_path):
    places = [str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)]
    out = tmp_path / "set"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(out), *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    parts = tmp_path / "set.unfinished"
    assert not out.exists() and len(list(parts.glob("[0-9]*.safetensors"))) == 2
    assert len(list(parts.glob(".*.safetensors*"))) == 1  # the part that was not renamed
    build(generator(), editor(), STYLES, SETTINGS, out)
    build(generator(), editor(), STYLES, SETTINGS, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole") and not parts.exists()


def test_parts_of_another_set_are_not_mixed_in(tmp_path):
    failing: Any = Failing(2)
    with pytest.raises(Stopped):
        build(generator(), failing, STYLES, SETTINGS, tmp_path / "set")
    with pytest.raises(ValueError, match=r"set.unfinished holds a part of another set"):
        build(generator(), editor(), ["a gold statue"], SETTINGS, tmp_path / "set")


@pytest.mark.lengthy
def test_another_set_is_not_replaced(tmp_path, monkeypatch):
    build(generator(), editor(), STYLES, SETTINGS, tmp_path / "set")
    before = files(tmp_path / "set")
    monkeypatch.setattr(InstructPix2Pix, "edit", lambda *_: pytest.fail("no work before the check"))
    with pytest.raises(ValueError, match="exists; name another place"):
        build(generator(), editor(), ["a gold statue"], SETTINGS, tmp_path / "set")
    with pytest.raises(ValueError, match="the style is empty"):
        build(generator(), editor(), ["an elf", " "], SETTINGS, tmp_path / "other")
    with pytest.raises(ValueError, match="set.zip: a few-shot set is a folder"):
        build(generator(), editor(), STYLES, SETTINGS, tmp_path / "set.zip")
    with pytest.raises(ValueError, match="no style is given"):
        build(generator(), editor(), [], SETTINGS, tmp_path / "other")
    assert files(tmp_path / "set") == before and not (tmp_path / "other").exists()


@pytest.mark.lengthy
def test_another_generator_is_refused(tmp_path):
    build(generator(), editor(), STYLES, SETTINGS, tmp_path / "set")
    with pytest.raises(ValueError, match="was built with the generator"):
        load(tmp_path / "set", generator(seed=1))


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "few-shot", "weights": []}', None])
def test_other_data_sets_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / fewshot.WORLD).write_text(content)
    with pytest.raises(ValueError, match="few-shot set"):
        load(tmp_path, generator())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"identities": 101}, "identities=101: at most 100"),
        ({"views": 0}, "views"),
        ({"yaw": 90}, "yaw=90: must be from 0 to below 90"),
        ({"pitch": -1}, "pitch=-1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_refused(change, problem):
    with pytest.raises(ValueError, match=problem):
        FewShotSettings(**change)

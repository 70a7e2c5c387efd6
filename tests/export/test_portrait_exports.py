"""Tests of what a portrait writes: sheets, films and meshes say where they come from."""

import dataclasses
import functools
from pathlib import Path

import pytest

from dreamportrait import DreamPortraitPipeline
from dreamportrait.export.portraits import Portrait
from dreamportrait.export.provenance import sidecar_path, verify


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return DreamPortraitPipeline.from_pretrained("mini")("a woman with red hair", seed=1)


@pytest.mark.lengthy
def test_every_file_says_that_a_model_made_it(portrait: Portrait, tmp_path: Path) -> None:
    portrait.save_sheet(tmp_path / "a.png")
    portrait.save_video(tmp_path / "a.gif", seconds=0.1, progress=False)
    portrait.save_mesh(tmp_path / "a.glb", 32)
    portrait.save_mesh(tmp_path / "a.ply", 32)
    assert portrait.claim.model == "mini" and portrait.claim.prompt is None
    for name in ("a.png", "a.gif", "a.glb", "a.ply"):
        assert verify(tmp_path / name) == portrait.claim, name


@pytest.mark.lengthy
def test_one_key_turns_it_off(portrait: Portrait, tmp_path: Path) -> None:
    portrait.save_sheet(tmp_path / "a.png", provenance=False)
    portrait.save_video(tmp_path / "a.gif", seconds=0.1, progress=False, provenance=False)
    portrait.save_mesh(tmp_path / "a.glb", 32, provenance=False)
    made = portrait.save_mesh(tmp_path / "a.ply", 32, provenance=False)
    assert made.texture is None  # a .ply has colours at its vertices
    for name in ("a.png", "a.gif", "a.glb", "a.ply"):
        assert verify(tmp_path / name) is None, name
    assert not sidecar_path(tmp_path / "a.ply").exists()


@pytest.mark.lengthy
def test_progress_bars(portrait: Portrait, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    exports = {
        "mesh": functools.partial(portrait.save_mesh, tmp_path / "a.glb", 32),
        "splats": functools.partial(portrait.save_splats, tmp_path / "a.spz", 1000),
        "page": functools.partial(portrait.save_page, tmp_path / "a.html", size=16),
    }
    for name, export in exports.items():
        export(progress=True)
        assert f"{name}  " in capsys.readouterr().err
    for progress in (False, None):  # by default, terminals only
        exports["mesh"](progress=progress, overwrite=True)
    assert capsys.readouterr().err == ""


def test_a_portrait_made_by_hand_still_names_the_program(portrait: Portrait, tmp_path: Path) -> None:
    by_hand = dataclasses.replace(portrait, claim=Portrait.claim)
    by_hand.save_sheet(tmp_path / "a.png")
    claim = verify(tmp_path / "a.png")
    assert claim is not None and claim.generator == "DreamPortrait" and claim.model is None


def test_an_unknown_motion_and_an_existing_file_are_refused(portrait: Portrait, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be orbit, ellipse or a file"):
        portrait.save_video(tmp_path / "a.gif", "spiral")
    (tmp_path / "a.glb").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        portrait.save_mesh(tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes() == b"mine"

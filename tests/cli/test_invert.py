"""Tests of the command `invert`."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dreamportrait.cli.invert import invert


def run(*arguments: object) -> Result:
    return CliRunner().invoke(invert, [str(argument) for argument in arguments])


@pytest.mark.lengthy
def test_a_photo_becomes_a_sheet_and_a_portrait(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    rest = ("--steps", 1, "--tuning-steps", 1, "--edit", "an old man", "--json")
    done = run(tmp_path / "photo.png", "--out", tmp_path / "o.png", "--save", tmp_path / "h.safetensors", *rest)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output[done.output.index("{") :])
    assert set(facts["psnr"]) == {"guess", "search", "tuning"} and facts["edits"] == ["an old man"]
    assert "not like the pictures that this model was trained on" in facts["notes"][0]  # noise is no face
    assert facts["strangeness"] > 2.25
    assert (tmp_path / "o.png").exists() and (tmp_path / "h.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.png",), "none.png is not there; name a picture"),
        (("none.png", "--out", "x.doc"), "must end in one of .png"),
        (("here.png", "--save", "head.stl"), "must end in .safetensors, .glb, .ply, .obj, .spz, .mp4"),
    ],
)
def test_wrong_names_are_refused_at_once(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("here.png")
    done = run(*arguments)
    assert done.exit_code == 1 and message in done.output

"""Tests of datasets/miniworld.py: it writes the miniature world, and refuses bad options before any work."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result
from places import ROOT

from dreamportrait.data.folder import ImageFolder
from dreamportrait.miniworld import world
from dreamportrait.miniworld.attributes import is_held_out

SCRIPT = ROOT / "datasets" / "miniworld.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load the script by its path, because datasets/ is not a package."""
    spec = importlib.util.spec_from_file_location("miniworld_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, *arguments: object) -> Result:
    return CliRunner().invoke(script.main, [str(argument) for argument in arguments])


def write(script: ModuleType, out: Path, *options: object) -> ImageFolder:
    result = run(script, out, *options)
    assert result.exit_code == 0, result.output
    assert f"wrote {out}" in result.output
    return ImageFolder(out)


def test_writes_the_miniature_world(script, tmp_path):
    data = write(script, tmp_path / "set", "--split", "test", "--count", 5)
    loaded = world.load("test", 5, tmp_path / "cache")
    assert len(data) == 5 and data.resolution == 64
    for i in range(5):
        image, camera, captions = data[i]
        assert np.array_equal(image.numpy(), loaded.images[i])
        assert np.array_equal(camera.numpy(), loaded.cameras[i])
        assert captions == loaded.captions(i) and len(captions) == 10
        assert data.evaluation[i] == loaded.evaluation_caption(i)
    assert data.attributes == loaded.attributes


def test_says_where_it_comes_from(script, tmp_path):
    write(script, tmp_path / "set", "--split", "combinations", "--count", 2, "--resolution", 32)
    about = json.loads((tmp_path / "set" / "world.json").read_text())
    expected = {"split": "combinations", "seed": world.SEEDS["combinations"], "count": 2, "resolution": 32}
    assert expected.items() <= about.items()
    assert about["fingerprint"] == world.fingerprint() and about["code_version"]
    assert len(about["captions_fingerprint"]) == 12
    assert all(is_held_out(attributes) for attributes in ImageFolder(tmp_path / "set").attributes)


def test_zip_and_resolution(script, tmp_path):
    data = write(script, tmp_path / "set.zip", "--split", "train", "--count", 2, "--resolution", 16, "--zip")
    assert data.resolution == 16 and (tmp_path / "set.zip").is_file()


def test_fewer_are_the_first_of_more(script, tmp_path):
    few = write(script, tmp_path / "few", "--split", "train", "--count", 2, "--resolution", 16)
    more = write(script, tmp_path / "more", "--split", "train", "--count", 3, "--resolution", 16)
    assert all(np.array_equal(few[i].image, more[i].image) and few[i].captions == more[i].captions for i in range(2))


def test_existing_output(script, tmp_path):
    options = ("--split", "train", "--count", 1, "--resolution", 16)
    write(script, tmp_path / "set", *options)
    result = run(script, tmp_path / "set", *options)
    assert result.exit_code == 1
    assert "set exists; name another place, or allow overwriting (--overwrite)" in result.output
    write(script, tmp_path / "set", *options, "--overwrite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--split", "holiday", "--count", "3"),
            "'holiday' is not one of 'train', 'validation', 'test'",
        ),
        (("--split", "train", "--count", "0"), "'--count': 0 is not in the range x>=1"),
        (("--split", "train", "--count", "-4"), "'--count': -4 is not in the range x>=1"),
        (("--split", "train", "--count", "many"), "'--count': 'many' is not a valid integer"),
        (("--split", "train"), "Missing option '--count'"),
        (("--split", "train", "--count", "3", "--resolution", "8"), "'--resolution': 8 is not in the range"),
        (("--split", "train", "--count", "3", "--zip"), "a zip file ends in .zip and needs --zip"),
    ],
)
def test_bad_options_are_named_before_any_work(script, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(script, "samples", lambda *_: pytest.fail("it has begun"))
    result = run(script, tmp_path / "set", *options)
    assert result.exit_code in (1, 2) and message in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_as_a_command_with_several_processes(script, tmp_path):
    options = ["--split", "test", "--count", "501", "--resolution", "64"]  # a process renders up to 500 at a time
    for name, workers in (("one.zip", "1"), ("two.zip", "2")):
        command = [sys.executable, str(SCRIPT), str(tmp_path / name), *options, "--zip", "--workers", workers]
        subprocess.run(command, check=True, capture_output=True, text=True)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()

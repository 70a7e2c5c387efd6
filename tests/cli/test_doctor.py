"""Tests of the command `doctor`."""

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dreamportrait.cli import main
from dreamportrait.core.errors import WeightsError

command = main.commands["doctor"]
module = importlib.import_module("dreamportrait.cli.doctor")  # the package holds the command under this name


@pytest.mark.lengthy
def test_everything_needed_is_found_here() -> None:
    done = CliRunner().invoke(command, ["--json"])
    found = {each["name"]: each for each in json.loads(done.output)}
    assert {"torch", "compiled ops", "mini", "mini/eg3d", "av", "cache"} <= set(found)
    assert done.exit_code == 0 and found["mini"]["state"] == "ok"


def test_what_is_broken_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise WeightsError(f"{name} is damaged")

    monkeypatch.setattr(module, "_torch", lambda: module_finding("torch"))
    monkeypatch.setattr(module, "_ops", lambda: module_finding("compiled ops"))
    monkeypatch.setattr(module, "locate", missing)
    done = CliRunner().invoke(command)
    assert done.exit_code == 1
    assert "WeightsError: mini/eg3d is damaged" in done.output and "-> install dreamportrait again" in done.output


def module_finding(name: str) -> object:
    return module.Finding(name, "ok", "")


def test_a_missing_extra_is_a_note_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_torch", "_ops"):
        monkeypatch.setattr(module, name, lambda: module_finding("x"))
    monkeypatch.setattr(module.util, "find_spec", lambda name: None)
    found = {each.name: each for each in module.findings()}
    assert found["av"].state == "note" and "pip install 'dreamportrait[video]'" in found["av"].remedy


def test_names_and_details_stand_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*module.NAMES, *module.EXTRAS]
    monkeypatch.setattr(module, "findings", lambda: (module.Finding(name, "ok", "fine") for name in names))
    lines = CliRunner().invoke(command).output.splitlines()
    assert [line.split() for line in lines] == [["ok", name, "fine"] for name in names]
    assert len({line.index("fine") for line in lines}) == 1

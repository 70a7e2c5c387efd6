"""Tests of docs/full-size.md: its commands exist, its configuration is valid, and all of it runs with stand-ins."""

import sys
from contextlib import nullcontext
from pathlib import Path

import click
import pytest
import yaml
from places import ROOT
from warm_commands import warm_commands

from dreamportrait.cli import main
from dreamportrait.systems.dreamportrait.config import load_config

sys.path.insert(0, str(ROOT / "tools"))
import rehearse_full_size as rehearsal

PAGE = rehearsal.PAGE.read_text(encoding="utf-8")
COMMANDS = rehearsal.commands(PAGE)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("dreamportrait ")])
def test_commands_and_their_options_exist(command: str) -> None:
    words, found = command.split()[1:], main
    while isinstance(found, click.Group):
        found = found.commands[words.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_scripts_exist() -> None:
    scripts = [word for command in COMMANDS for word in command.split() if word.endswith(".py")]
    assert scripts and all((ROOT / script).is_file() for script in scripts)


def test_the_configuration_of_the_page(tmp_path: Path) -> None:
    """Both forms of lab.yaml must be valid: as printed, and as rehearsed."""
    (lab,) = [block.text for block in rehearsal.blocks(PAGE) if block.language == "yaml"]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for text in (lab, rehearsal.merged(lab, rehearsal.SMALL)):
        (tmp_path / "lab.yaml").write_text(text)
        config = load_config(tmp_path / "lab.yaml")
        assert config.contradictions() == [] and config.text.clip == "weights/vit-h-14"
    assert yaml.safe_load(lab)["base"] == "configs/dreamportrait/celebatext_hq.yaml"


def test_every_change_applies_to_the_page() -> None:
    """A change whose text is no longer on the page would leave a command at full size."""
    unused = [before for before, _ in rehearsal.CHANGES if not any(before in command for command in COMMANDS)]
    assert unused == [] and rehearsal.LAUNCH in COMMANDS


# Each command is a process or two, which would import for a quarter of a minute. Forks take a third of the time.
@pytest.mark.lengthy
@pytest.mark.parametrize("processes", ["forks", pytest.param("of their own", marks=pytest.mark.slow)])
def test_the_whole_page_runs(tmp_path: Path, processes: str) -> None:
    variables = rehearsal.environment()
    with warm_commands(variables) if processes == "forks" else nullcontext(variables) as given:
        rehearsal.rehearse(tmp_path, variables=given)
    assert (tmp_path / "scores/lab/scores.md").is_file() and (tmp_path / "portrait.png").is_file()
    starts = sorted(path.name for path in (tmp_path / "runs/lab/starts").iterdir())
    assert starts == ["000", "001"]  # it was stopped, and continued
    for run in ("lab", "lab_1", "lab_64"):
        assert (tmp_path / "runs" / run / "portrait" / "config.json").is_file()

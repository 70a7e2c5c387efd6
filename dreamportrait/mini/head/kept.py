"""Results of a study, kept in a file for each run, so that an interrupted study continues."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dreamportrait.core.errors import DataError
from dreamportrait.core.files import write_text


def check_settings(out: Path, here: Mapping[str, Any]) -> None:
    """Note the settings of a study in its folder. Raise DataError if the folder holds results of others."""
    place = out / "settings.json"
    if place.is_file() and (before := json.loads(place.read_text())) != here:
        raise DataError(f"{out} holds results of {before}, not of {dict(here)}; name another folder with --out")
    write_text(place, json.dumps(here) + "\n")


def each(folder: Path, count: int, make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of runs 0 to `count`. Those that the folder lacks are made and kept there."""
    found = []
    for i in range(count):
        place = folder / f"{i:03d}.json"
        if not place.is_file():
            write_text(place, json.dumps(make(i)) + "\n")
        found.append(json.loads(place.read_text()))
    return found

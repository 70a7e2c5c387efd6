"""Writes the landmarks of all photographs of a source to a hand-over file. The same command continues a stopped run."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dreamportrait.data.index import LANDMARKS
from dreamportrait.data.preparation.landmarks import write_landmarks
from dreamportrait.data.preparation.layouts import Photo, Source
from dreamportrait.data.preparation.looking import look_at_all
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.preparation.steps import Networks, Tools, steps
from dreamportrait.data.preparation.tars import sha256
from dreamportrait.data.preparation.unfinished import begin, undisturbed, unfinished


@dataclass(frozen=True)
class Landmarks:
    """What was found in the photographs of a source."""

    faces: int
    photographs: int
    unreadable: dict[str, str]  # reasons by file


def find_landmarks(
    source: Source,
    out: Path,
    settings: Settings,
    networks: Networks,
    workers: int = 1,
    report: Callable[[str, int, int], None] = lambda step, done, count: None,
) -> Landmarks:
    """Look at every photograph, with or without captions, and write `out`, which is replaced if it exists."""
    out = out.resolve()
    photos = [Photo(photo.file) for photo in source.photos]
    sizes = [(photo.file, source.files.size(photo.file)) for photo in photos]
    work = unfinished(out)
    with undisturbed(out):
        with steps(Tools(source.files, settings, networks), workers) as do:
            begin(work, {"identity": sha256(json.dumps(["landmarks", sizes]).encode())})
            seen = look_at_all(work, photos, do, report)
        found = [each.found for each in seen.values() if each.found is not None]
        write_landmarks(work / LANDMARKS, found)
        os.replace(work / LANDMARKS, out)
        shutil.rmtree(work)
    unreadable = {file: each.problem for file, each in seen.items() if each.found is None}
    return Landmarks(sum(len(each.faces) for each in found), len(found), unreadable)

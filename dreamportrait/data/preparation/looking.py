"""Looks at every photograph once, and remembers in a file what it found, so that a stopped run continues."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from dreamportrait.data.preparation.landmarks import parse_line, to_line
from dreamportrait.data.preparation.layouts import Photo
from dreamportrait.data.preparation.steps import Seen, Steps

SEEN = "seen.jsonl"


def look_at_all(
    work: Path, photos: Sequence[Photo], do: Steps, report: Callable[[str, int, int], None]
) -> dict[str, Seen]:
    """Return what every photograph shows, in their order. Photographs with a problem are not read."""
    path = work / SEEN
    known = _read(path)
    _truncate(path)
    left = [photo.file for photo in photos if photo.file not in known and not photo.problem]
    done = len(photos) - len(left)
    report("looking", done, len(photos))
    with path.open("a", encoding="utf-8") as file:
        for number, seen in enumerate(do.look(left), 1):
            line = _to_line(seen)
            file.write(line)
            file.flush()
            known[seen.file] = _seen(line, path)  # rounded, as a continued run will read it
            report("looking", done + number, len(photos))
    return {photo.file: known.get(photo.file, Seen(photo.file, problem=photo.problem)) for photo in photos}


def _to_line(seen: Seen) -> str:
    found = None if seen.found is None else json.loads(to_line(seen.found))
    row = {"file": seen.file, "sha256": seen.sha256, "found": found, "problem": seen.problem}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Seen]:
    """Return what was found before. The last line is left out if the run was killed while it was written."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return {seen.file: seen for seen in (_seen(line, path) for line in lines)}


def _seen(line: str, path: Path) -> Seen:
    row = json.loads(line)
    found = row["found"] and parse_line(json.dumps(row["found"]), str(path))
    return Seen(row["file"], row["sha256"], found, row["problem"])


def _truncate(path: Path) -> None:
    """Remove an incomplete last line."""
    if path.is_file():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])

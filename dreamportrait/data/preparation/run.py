"""Prepares a data set: looks at every photograph, decides, cuts, writes. The same command continues a stopped run.

Everything is written to a hidden folder beside OUT, which is renamed at the end, so OUT is complete or not there. The
hidden folder remembers what was found in each photograph, and which shards are finished.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array

from dreamportrait import __version__
from dreamportrait.core.errors import DataError
from dreamportrait.core.files import write_text
from dreamportrait.data.index import (
    FORMAT,
    INDEX,
    LANDMARKS,
    PREPARATION,
    Dropped,
    Entry,
    index_lines,
    is_prepared,
    read_preparation,
    shard_path,
    to_lines,
)
from dreamportrait.data.preparation.cameras import checked, read_cameras
from dreamportrait.data.preparation.landmarks import Found, read_landmarks, write_landmarks
from dreamportrait.data.preparation.layouts import Source, open_source
from dreamportrait.data.preparation.looking import look_at_all
from dreamportrait.data.preparation.plan import Planned, plan
from dreamportrait.data.preparation.pose import angles
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.preparation.steps import Networks, Seen, Steps, Tools, steps
from dreamportrait.data.preparation.tars import sha256, write_shard
from dreamportrait.data.preparation.unfinished import begin, undisturbed, unfinished

BYTES_PER_PIXEL = {"jpg": 0.6, "png": 2.0, "webp": 1.5}  # of photographs, rounded up
Report = Callable[[str, int, int], None]  # a step's name, photographs done, and all of them


@dataclass(frozen=True)
class Outcome:
    """How a preparation ended."""

    pictures: int
    dropped: dict[str, int]  # by reason
    existed: bool = False


def prepare(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    captions: Path | None = None,
    landmarks: Path | None = None,
    poses: Path | None = None,
    networks: Networks | None = None,
    overwrite: bool = False,
    report: Report = lambda step, done, count: None,
) -> Outcome:
    """Prepare the photographs of `source` as the data set `out`.

    landmarks: a hand-over file to use instead of the face networks. poses: cameras of pictures that are aligned.
    """
    _check_arguments(settings, landmarks, poses)
    out = out.resolve()
    if out.exists() and not is_prepared(out) and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is no prepared data set; it is left alone: name another folder")
    opened = open_source(source, settings.layout, captions)
    about = _identity(source, opened, settings, landmarks, poses)
    if is_prepared(out):
        if read_preparation(out)["identity"] == about["identity"]:
            return _outcome([row for _, row in index_lines(out)], existed=True)
        if not overwrite:
            raise DataError(f"{out} was prepared from other data or settings; name another folder, or --overwrite")
    given = None if landmarks is None else read_landmarks(landmarks)
    labels = _labels(opened, settings, poses)
    finder = networks or Networks() if given is None and labels is None else None
    work = unfinished(out)
    with undisturbed(out):
        _check_space(work, len(opened.photos), settings)
        with steps(Tools(opened.files, settings, finder), workers) as do:  # an error before anything is written
            begin(work, about)
            rows = _make(work, opened, settings, do, given, labels, report)
        _finish(work, out, about, rows)
    return _outcome(rows)


def _check_arguments(settings: Settings, landmarks: Path | None, poses: Path | None) -> None:
    if poses is not None and not settings.aligned:
        raise DataError("poses belong to pictures that are aligned already; add --aligned")
    if landmarks is not None and settings.aligned:
        raise DataError("pictures that are aligned already need no landmarks; leave out --landmarks or --aligned")
    if settings.aligned and poses is None and settings.layout != "eg3d":
        raise DataError("--aligned needs the cameras of the pictures: --poses FILE, or the layout eg3d")
    for path in (landmarks, poses):
        if path is not None and not path.exists():
            raise DataError(f"{path} is not there")


def _identity(
    path: Path, source: Source, settings: Settings, landmarks: Path | None, poses: Path | None
) -> dict[str, Any]:
    """Return what a prepared data set is made from. Photographs count by name and size, as reading all takes long."""
    photos = json.dumps([{**asdict(photo), "size": source.files.size(photo.file)} for photo in source.photos]).encode()
    labels = json.dumps(source.labels).encode()
    given = {name: None if file is None else _hash(file) for name, file in (("landmarks", landmarks), ("poses", poses))}
    parts = {"settings": asdict(settings), "photos": sha256(photos), "labels": sha256(labels), **given}
    return {
        "format": FORMAT,
        "identity": sha256(json.dumps(parts, sort_keys=True).encode()),
        "source": str(path.resolve()),
        **asdict(settings),
        "code_version": __version__,
    }


def _hash(path: Path) -> str:
    """Return a hash of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        return sha256(path.read_bytes())
    return sha256("".join(f"{each.name} {_hash(each)}\n" for each in sorted(path.iterdir()) if each.is_file()).encode())


def _check_space(work: Path, count: int, settings: Settings) -> None:
    needed = int(count * settings.resolution**2 * BYTES_PER_PIXEL[settings.kind])
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    free = shutil.disk_usage(work.parent).free
    if needed - there > free:
        raise DataError(
            f"{count} pictures may need {needed / 1e9:.1f} GB, {work.parent} has {free / 1e9:.1f} GB left; free some "
            "space, or name another folder"
        )


def _labels(source: Source, settings: Settings, poses: Path | None) -> dict[str, Array | str] | None:
    """Return the cameras of pictures that are aligned already, or what is wrong with them; None for others."""
    if not settings.aligned:
        return None
    return checked(source.labels) if poses is None else read_cameras(poses, [photo.file for photo in source.photos])


def _make(
    work: Path,
    source: Source,
    settings: Settings,
    do: Steps,
    given: dict[str, Found] | None,
    labels: dict[str, Array | str] | None,
    report: Report,
) -> list[Entry | Dropped]:
    """Do both steps, and return the index. given: landmarks of another detector. labels: cameras that are known."""
    seen = look_at_all(work, source.photos, do, report)
    if given is not None:
        seen = {file: Seen(file, each.sha256, given.get(file), each.problem) for file, each in seen.items()}
    planned = plan(source.photos, seen, labels, settings)
    if not any(isinstance(row, Planned) for row in planned):
        shutil.rmtree(work)
        raise DataError(f"{source.files.path}: no photograph can be used: {_reasons(planned)}")
    rows = _write_shards(work, planned, settings, do, report)
    if given is None and labels is None:
        write_landmarks(work / LANDMARKS, (each.found for each in seen.values() if each.found is not None))
    return rows


def _reasons(rows: Sequence[Planned | Dropped]) -> str:
    dropped = [row for row in rows if isinstance(row, Dropped)]
    return "; ".join(f"{row.file}: {row.dropped}" for row in dropped[:3])


def _write_shards(
    work: Path, planned: Sequence[Planned | Dropped], settings: Settings, do: Steps, report: Report
) -> list[Entry | Dropped]:
    """Write all shards that are not there yet. Return the index in the order of the photographs."""
    pictures = [row for row in planned if isinstance(row, Planned)]
    written: dict[str, Entry | Dropped] = {}
    for number, start in enumerate(range(0, len(pictures), settings.per_shard)):
        part = pictures[start : start + settings.per_shard]
        finished = work / f"shard-{number:05d}.jsonl"
        if not finished.is_file():
            rows = _write_shard(work, number, start, part, settings, do, report, len(pictures))
            write_text(finished, to_lines(rows))
        written |= {row.file: row for row in _rows(finished)}
        report("writing", start + len(part), len(pictures))
    return [written[row.file] if isinstance(row, Planned) else row for row in planned]


def _rows(path: Path) -> list[Entry | Dropped]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Dropped(**line) if "dropped" in line else Entry(**line) for line in lines]


def _write_shard(
    work: Path,
    number: int,
    start: int,
    part: Sequence[Planned],
    settings: Settings,
    do: Steps,
    report: Report,
    count: int,
) -> list[Entry | Dropped]:
    rows: list[Entry | Dropped] = []

    def samples() -> Iterator[tuple[str, str, bytes, dict[str, Any]]]:
        for i, (each, cut) in enumerate(zip(part, do.cut(each.job for each in part), strict=True)):
            report("writing", start + i, count)
            if cut.problem:
                rows.append(Dropped(each.file, each.split, cut.problem))
                continue
            camera = [float(v) for v in each.camera.astype(np.float32)]
            turned = [round(float(v), 3) for v in angles(each.camera[None])[0]]
            told = (each.file, each.split, each.captions, each.evaluation, camera, sha256(cut.content), cut.look)
            rows.append(Entry(*told, number, 0, len(cut.content), turned, each.error))
            data = dict(zip(("file", "split", "captions", "evaluation", "camera"), told, strict=False))
            yield f"{start + i:08d}", settings.kind, cut.content, data

    offsets = iter(write_shard(shard_path(work, number), samples()))
    return [Entry(**(asdict(row) | {"offset": next(offsets)})) if isinstance(row, Entry) else row for row in rows]


def _finish(work: Path, out: Path, about: dict[str, Any], rows: list[Entry | Dropped]) -> None:
    """Write the index, remove what only a continued run needs, and move the data set to its place."""
    entries = [row for row in rows if isinstance(row, Entry)]
    if not entries:
        raise DataError(f"no photograph could be used; {work / 'seen.jsonl'} has the reasons")
    write_text(work / INDEX, to_lines(rows))
    counts = {
        "pictures": len(entries),
        "dropped": len(rows) - len(entries),
        "shards": 1 + max(e.shard for e in entries),
    }
    write_text(work / PREPARATION, json.dumps(about | counts, indent=2) + "\n")
    for path in [*work.glob("shard-*.jsonl"), work / "seen.jsonl"]:
        path.unlink(missing_ok=True)
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        os.replace(out, old)
    os.replace(work, out)
    shutil.rmtree(old, ignore_errors=True)


def _outcome(rows: Sequence[Entry | Dropped], existed: bool = False) -> Outcome:
    dropped: dict[str, int] = {}
    for row in rows:
        if isinstance(row, Dropped):
            reason = row.dropped.split(":")[0]
            dropped[reason] = dropped.get(reason, 0) + 1
    return Outcome(sum(isinstance(row, Entry) for row in rows), dropped, existed)

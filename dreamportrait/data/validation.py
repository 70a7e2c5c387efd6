"""Checks a prepared data set, or a folder or zip file with EG3D's dataset.json, and names every problem with its row.

Checked are labels (25 finite numbers, a rotation, normalised intrinsics, the distance, the range of angles), captions
(present, readable, no control characters), pictures (there, unchanged, decodable, of the right size), names and
pictures that occur twice, and pictures that lie in two splits, perhaps with another size or quality.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamportrait.core.errors import DataError, brief, shown
from dreamportrait.data.index import SPLITS, Dropped, Entry, index_lines, is_prepared, read_preparation, shard_path
from dreamportrait.data.lookalikes import Lookalikes
from dreamportrait.data.preparation.cameras import checked
from dreamportrait.data.preparation.captions import clean
from dreamportrait.data.preparation.layouts import open_source
from dreamportrait.data.preparation.pictures import Unusable, fingerprint
from dreamportrait.data.preparation.pose import angles
from dreamportrait.data.preparation.tars import sha256

MOST_YAW, MOST_PITCH = 100.0, 60.0  # degrees
DISTANCES = (2.2, 3.2)  # of cameras from the origin; EG3D's lie between 2.5 and 2.9


@dataclass(frozen=True)
class Problem:
    """Something wrong: the file and row of the data set, and what it is."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Row:
    """A picture of a data set, in whatever form it lies there."""

    where: str
    file: str
    split: str
    captions: Sequence[Any]
    evaluation: Any
    label: Any
    read: Callable[[], bytes]
    sha256: str = ""  # empty = not known


@dataclass
class Report:
    """What a validation found. rows: the pictures whose labels can be used."""

    problems: list[Problem] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    pictures: int = 0
    dropped: int = 0

    def add(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what))


def validate(path: Path, pictures: bool = True, progress: Callable[[int], object] = lambda count: None) -> Report:
    """Check a data set. pictures: whether to read and decode every picture as well."""
    report = Report()
    rows, resolution = _prepared(path, report) if is_prepared(path) else _eg3d(path, report)
    seen = _Seen(report)
    for row in rows:
        report.pictures += 1
        seen.add(row, "", "name", row.file)
        if _check_label(row, report):
            report.rows.append(row)
        _check_captions(row, report)
        if row.split not in SPLITS:
            report.add(row.where, f"split {brief(row.split)}; must be one of {', '.join(SPLITS)}")
        if pictures:
            resolution = _check_picture(row, resolution, report, seen)
        progress(1)
    if not report.pictures:
        report.add(str(path), "holds no pictures")
    return report


def count_rows(path: Path) -> int:
    """Return the number of pictures to check, for a progress bar."""
    if is_prepared(path):
        return int(read_preparation(path).get("pictures", 0))
    return len(open_source(path, "eg3d").photos)


# Rows.


def _prepared(path: Path, report: Report) -> tuple[Iterator[Row], int]:
    return _prepared_rows(path, report), int(read_preparation(path)["resolution"])


def _prepared_rows(path: Path, report: Report) -> Iterator[Row]:
    lines = index_lines(path)
    while True:
        try:
            where, entry = next(lines)
        except StopIteration:
            return
        except DataError as error:  # a damaged line ends the index: what follows has no certain place
            report.add(str(path), str(error))
            return
        if isinstance(entry, Dropped):
            report.dropped += 1
        else:
            told = (entry.file, entry.split, entry.captions, entry.evaluation, entry.camera)
            yield Row(f"{where} ({entry.file})", *told, _reader(path, entry), entry.sha256)


def _reader(path: Path, entry: Entry) -> Callable[[], bytes]:
    def read() -> bytes:
        shard = shard_path(path, entry.shard)
        try:
            with shard.open("rb") as file:
                file.seek(entry.offset)
                return file.read(entry.size)
        except OSError as error:
            raise Unusable(f"{shard} cannot be read: {error.strerror}") from None

    return read


def _eg3d(path: Path, report: Report) -> tuple[Iterator[Row], int]:
    source = open_source(path, "eg3d")

    def rows() -> Iterator[Row]:
        for number, photo in enumerate(source.photos, 1):
            where = f"{path}: picture {number} ({photo.file})"
            if photo.problem:
                report.add(where, photo.problem)
            evaluation = photo.evaluation or (photo.captions[0] if photo.captions else "")
            label = source.labels.get(photo.file)
            told = (photo.file, photo.split, photo.captions, evaluation, label)
            yield Row(where, *told, lambda file=photo.file: source.files.read(file))  # type: ignore[misc]
        names = {photo.file for photo in source.photos}
        for file in source.labels:
            if file not in names:
                report.add(f"{path}: dataset.json", f"a label but no picture for {shown(file)}")

    return rows(), 0


# Checks.


def _check_label(row: Row, report: Report) -> bool:
    if row.label is None:
        report.add(row.where, "has no label")
        return False
    camera = checked({row.file: row.label})[row.file]
    if isinstance(camera, str):
        report.add(row.where, camera)
        return False
    yaw, pitch, _ = angles(camera[None])[0]
    if abs(yaw) > MOST_YAW or abs(pitch) > MOST_PITCH:
        report.add(row.where, f"yaw {round(yaw)}, pitch {round(pitch)} degrees: no view of a face")
    distance = float(np.linalg.norm(camera[[3, 7, 11]]))
    if not DISTANCES[0] <= distance <= DISTANCES[1]:
        report.add(
            row.where, f"its camera is {distance:.2f} from the origin, expected {DISTANCES[0]} to {DISTANCES[1]}"
        )
    return True


def _check_captions(row: Row, report: Report) -> None:
    texts = [*row.captions, row.evaluation]
    if not row.captions:
        report.add(row.where, "has no caption")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            report.add(row.where, f"a caption is {brief(text)}, no text")
        elif "\ufffd" in text:
            report.add(row.where, f"a caption has unreadable characters: {shown(text, 40)}")
        elif clean(text) != text:
            report.add(row.where, f"a caption is not clean: {shown(text, 40)}")


def _check_picture(row: Row, resolution: int, report: Report, seen: "_Seen") -> int:
    """Check the picture of a row, and return the size that the next ones must have; 0 = not known yet."""
    try:
        content = row.read()
        if row.sha256 and sha256(content) != row.sha256:
            raise Unusable("its picture is not the one that was written: the shard was changed or cut short")
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except Unusable as error:
        report.add(row.where, str(error))
        return resolution
    except Exception as error:  # damaged files raise many kinds of errors
        report.add(row.where, f"its picture cannot be decoded: {shown(str(error), 80)}")
        return resolution
    seen.add(row, "the same picture", "content", sha256(content))
    seen.add_look(row, picture)
    if picture.mode != "RGB":
        report.add(row.where, f"its picture has mode {picture.mode}, not RGB")
    expected = resolution or picture.width
    if picture.size != (expected, expected):
        report.add(row.where, f"its picture is {picture.width} x {picture.height}, not {expected} x {expected}")
    return expected


class _Seen:
    """Finds what occurs twice. Each pair of rows is reported once, by the strongest reason."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._first: dict[tuple[str, str], Row] = {}
        self._told: dict[str, set[str]] = defaultdict(set)
        self._looks, self._rows = Lookalikes(), list[Row]()

    def add(self, row: Row, what: str, kind: str, value: str) -> None:
        other = self._first.setdefault((kind, value), row)
        if other is not row:
            self._tell(row, what, kind, other)

    def add_look(self, row: Row, picture: Image.Image) -> None:
        """Find the first picture of another split that looks the same."""
        self._rows.append(row)
        for number in self._looks.add(len(self._rows) - 1, fingerprint(picture), picture, row.read):
            if self._rows[number].split != row.split:
                self._tell(row, "a picture that looks the same", "look", self._rows[number])
                return

    def _tell(self, row: Row, what: str, kind: str, other: Row) -> None:
        if other.where in self._told[row.where]:
            return
        self._told[row.where].add(other.where)
        if kind == "name":
            self._report.add(row.where, f"its name occurs twice, also in {other.where}")
        elif other.split != row.split:
            self._report.add(
                row.where, f"split leakage: {what} is in {other.split}, {other.where}; this is {row.split}"
            )
        elif kind == "content":
            self._report.add(row.where, f"{what} is there twice, also in {other.where}")

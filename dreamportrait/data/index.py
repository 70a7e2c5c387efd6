"""The index of a prepared data set: a line for each photograph that went in, also for those that were dropped.

A prepared data set is a folder:

    preparation.json   settings, versions, the number of pictures and shards
    index.jsonl        a line per photograph, in the order of the source
    shards/00000.tar   pictures and their data, in the layout of webdataset: 00000007.jpg and 00000007.json
    landmarks.jsonl    what the detector found; only of photographs that were aligned here

Lines of index.jsonl are {"file", "split", "captions", "evaluation", "camera", "sha256", "look", "shard", "offset",
"size", "angles", "error"} for pictures, and {"file", "split", "dropped": reason} for the others. `sha256` is of the
picture's bytes in the shard, which start at `offset`; `look` is a fingerprint of what it shows; `angles` are yaw, pitch
and roll in degrees; `error` is how far landmarks lie from the projected head, as a share of the picture.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dreamportrait.core.errors import DataError, brief

INDEX, PREPARATION, SHARDS, LANDMARKS = "index.jsonl", "preparation.json", "shards", "landmarks.jsonl"
FORMAT = 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """A picture of a prepared data set."""

    file: str  # in the source
    split: str
    captions: list[str]
    evaluation: str
    camera: list[float]
    sha256: str
    look: str
    shard: int
    offset: int
    size: int
    angles: list[float]
    error: float | None = None  # None = the pose was imported


@dataclass(frozen=True)
class Dropped:
    """A photograph that was not used."""

    file: str
    split: str
    dropped: str  # the reason


_KEYS = {each: {field.name for field in fields(each)} for each in (Entry, Dropped)}
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("file", "split", "evaluation", "sha256", "look", "dropped"), str),
    **dict.fromkeys(("captions", "camera", "angles"), list),
    **dict.fromkeys(("shard", "offset", "size"), int),
    "error": (int, float, type(None)),
}


def is_prepared(path: str | Path) -> bool:
    """Return whether a path is a prepared data set, finished or not."""
    return (Path(path) / PREPARATION).is_file()


def shard_path(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:05d}.tar"


def read_preparation(folder: Path) -> dict[str, Any]:
    """Return preparation.json. Raise DataError unless it is of a format that this version reads."""
    path = folder / PREPARATION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; prepare the data set again") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        given = brief(values.get("format") if isinstance(values, dict) else values)
        raise DataError(f"{path}: format {given}; this version reads format {FORMAT}: prepare the data set again")
    return values


def read_index(folder: Path) -> list[Entry | Dropped]:
    """Read the whole index. Raise DataError that names the first wrong line."""
    return [row for _, row in index_lines(folder)]


def index_lines(folder: Path) -> Iterator[tuple[str, Entry | Dropped]]:
    """Yield the place and content of every line."""
    path = folder / INDEX
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}, line {number}", _row(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; prepare the data set again") from None


def _row(line: str, where: str) -> Entry | Dropped:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    kind = Dropped if isinstance(values, dict) and "dropped" in values else Entry
    if not isinstance(values, dict) or set(values) != _KEYS[kind]:
        raise DataError(f"{where}: must have exactly {', '.join(sorted(_KEYS[kind]))}")
    if wrong := [key for key, value in values.items() if not isinstance(value, _TYPES[key])]:
        raise DataError(f"{where}: {wrong[0]} is {brief(values[wrong[0]])}, of a wrong type")
    row: Entry | Dropped = kind(**values)
    return row


def to_lines(rows: Iterable[Entry | Dropped]) -> str:
    return "".join(json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)

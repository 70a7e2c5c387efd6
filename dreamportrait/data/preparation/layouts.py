"""What a source holds: photographs with captions, in the layouts in which data sets are published.

folder           any folder or zip file of pictures, with captions in captions.jsonl, metadata.jsonl, captions.csv or
                 metadata.csv, or in a text file beside each picture
celeba-text-hq   CelebAimg/7.jpg (or CelebA-HQ-img/), captions/7.txt, and data_flist/train.flist, data_flist/test.flist
ffhq-text        Image/00007.png, Text/00007.txt, and lists of file names in Train and Test (.pkl or .txt)
eg3d             pictures and dataset.json, with or without captions.jsonl; the pictures are aligned already

A caption file has one caption on each line. Lines of JSONL are {"file": ..., "captions": [...]}, with "caption" for
one; "evaluation" and "split" may be added. CSV has the columns file and caption, perhaps split; several rows of a file
are several captions. "file_name" may stand for "file", and "text" for "caption".
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dreamportrait.core.errors import DataError, brief, listed, shown
from dreamportrait.data.index import SPLITS
from dreamportrait.data.preparation.captions import caption_lines
from dreamportrait.data.preparation.files import Files, open_files
from dreamportrait.data.preparation.pictures import SUFFIXES, Unusable
from dreamportrait.data.preparation.splits import read_list, split_by_name


@dataclass(frozen=True)
class Photo:
    """A photograph of a source, or why it cannot be used."""

    file: str
    captions: tuple[str, ...] = ()
    split: str = "train"
    evaluation: str | None = None  # None = the first caption
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """The photographs of a data set that somebody else published."""

    files: Files
    photos: list[Photo]
    labels: dict[str, Any] = field(default_factory=dict)  # by file, unchecked; only of the layout eg3d


def open_source(path: Path, layout: str, captions: Path | None = None) -> Source:
    """List the photographs of a source. captions: a JSONL or CSV file to use instead of those in the source."""
    if layout not in LAYOUTS:
        raise DataError(f"layout={layout!r}: must be one of {', '.join(LAYOUTS)}")
    files = open_files(path)
    source = LAYOUTS[layout](files, captions)
    if not source.photos:
        raise DataError(f"{path} holds no pictures ({', '.join(SUFFIXES)}) where {layout} has them; see docs/data.md")
    return source


# Layouts.


def _folder(files: Files, captions: Path | None) -> Source:
    pictures = _pictures(files.names)
    table = _find_table(files, captions)
    if table is not None:
        return Source(files, _from_table(pictures, table, files.path))
    present = set(files.names)
    return Source(files, [_with_text(files, name, _beside(name, present)) for name in pictures])


def _celeba_text_hq(files: Files, captions: Path | None) -> Source:
    lists = {split: _listed_names(files, f"data_flist/{split}.flist") for split in ("train", "test")}
    return _numbered(files, captions, ("CelebAimg", "CelebA-HQ-img", "images"), ("captions", "celeba-caption"), lists)


def _ffhq_text(files: Files, captions: Path | None) -> Source:
    lists = {split: _any_list(files, split) for split in ("train", "test")}
    return _numbered(files, captions, ("Image", "Images", "images"), ("Text", "Texts", "text"), lists)


def _eg3d(files: Files, captions: Path | None) -> Source:
    source = _folder(files, captions) if _find_table(files, captions) is not None else None
    photos = source.photos if source else [Photo(name, split=split_by_name(name)) for name in _pictures(files.names)]
    return Source(files, photos, read_labels(_json(files, "dataset.json"), str(files.path / "dataset.json")))


LAYOUTS: dict[str, Callable[[Files, Path | None], Source]] = {
    "folder": _folder,
    "celeba-text-hq": _celeba_text_hq,
    "ffhq-text": _ffhq_text,
    "eg3d": _eg3d,
}


def _numbered(
    files: Files,
    captions: Path | None,
    picture_folders: tuple[str, ...],
    text_folders: tuple[str, ...],
    lists: dict[str, set[str]],
) -> Source:
    """Return pictures of one folder, with captions of the same name in another, split by lists of names."""
    pictures = _pictures(name for name in files.names if PurePosixPath(name).parent.name in picture_folders)
    if not pictures:
        raise DataError(f"{files.path} has no folder {' or '.join(picture_folders)} with pictures")
    if captions is not None:
        photos = _from_table(pictures, _parse_table(captions.name, _text_of(captions), str(captions)), files.path)
    else:
        texts = {PurePosixPath(n).stem: n for n in files.names if PurePosixPath(n).parent.name in text_folders}
        photos = [_with_text(files, name, texts.get(PurePosixPath(name).stem)) for name in pictures]
    if any(lists.values()):
        photos = [_in_lists(photo, lists) for photo in photos]
    return Source(files, photos)


def _in_lists(photo: Photo, lists: dict[str, set[str]]) -> Photo:
    stem = PurePosixPath(photo.file).stem
    found = [split for split, stems in lists.items() if stem in stems]
    if len(found) == 1:
        return replace(photo, split=found[0])
    return replace(photo, problem=photo.problem or ("in the lists of two splits" if found else "in no list of a split"))


def _listed_names(files: Files, end: str) -> set[str]:
    """Return the stems in the lists whose path ends so; empty without such a list."""
    paths = [name for name in files.names if f"/{name}".lower().endswith(f"/{end}".lower())]
    if len(paths) > 1:
        raise DataError(f"{files.path} holds several lists of a split: {listed(paths)}; keep one")
    return {PurePosixPath(line.replace("\\", "/")).stem for path in paths for line in _read_list(files, path)}


def _any_list(files: Files, split: str) -> set[str]:
    """Return the stems of a list named train or test, or in a folder of that name."""
    found: set[str] = set()
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix.lower() in (".pkl", ".pickle", ".txt") and split in (
            path.stem.lower(),
            path.parent.name.lower(),
        ):
            found |= {PurePosixPath(line.replace("\\", "/")).stem for line in _read_list(files, name)}
    return found


def _read_list(files: Files, name: str) -> list[str]:
    try:
        return read_list(PurePosixPath(name).name, files.read(name), f"{files.path}: {name}")
    except Unusable as error:
        raise DataError(f"{files.path}: {name} {error}") from None


# Captions.


def _with_text(files: Files, name: str, text: str | None) -> Photo:
    """Return a picture with the captions of a text file."""
    photo = Photo(name, split=split_by_name(name))
    if text is None:
        return replace(photo, problem="no caption")
    try:
        return replace(photo, captions=tuple(caption_lines(files.read(text))))
    except Unusable as error:
        return replace(photo, problem=str(error))


def _beside(name: str, present: set[str]) -> str | None:
    """Return the caption file of a picture: face.txt for face.jpg, or face.jpg.txt."""
    options = (str(PurePosixPath(name).with_suffix(".txt")), f"{name}.txt")
    return next((option for option in options if option in present), None)


def _find_table(files: Files, captions: Path | None) -> dict[str, Photo] | None:
    if captions is not None:
        return _parse_table(captions.name, _text_of(captions), str(captions))
    for name in ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv"):
        if name in files.names:
            where = f"{files.path}: {name}"
            try:
                return _parse_table(name, _decoded(files.read(name), where), where)
            except Unusable as error:
                raise DataError(f"{where} {error}") from None
    return None


def _text_of(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"captions {path} cannot be read: {error}") from None


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8: {error}; save it as UTF-8") from None


def _parse_table(name: str, text: str, where: str) -> dict[str, Photo]:
    """Return captions by file, of a JSONL or CSV file."""
    if name.lower().endswith(".csv"):
        rows = [(f"{where}, row {i}", row) for i, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 2)]
    elif name.lower().endswith(".jsonl"):
        lines = [(f"{where}, line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(place, _parsed(line, place)) for place, line in lines]
    else:
        raise DataError(f"captions {where}: must be .jsonl or .csv")
    return _joined(rows, several=name.lower().endswith(".csv"))


def _joined(rows: list[tuple[str, Any]], several: bool) -> dict[str, Photo]:
    """Join the rows of each file. several: whether a file may have more than one."""
    found: dict[str, list[Photo]] = defaultdict(list)
    for where, row in rows:
        photo = _row(row, where)
        if photo.file in found and not several:
            raise DataError(f"{where}: a second line for {shown(photo.file)}; put all captions on one line")
        if photo.file in found and photo.split != found[photo.file][0].split:
            raise DataError(f"{where}: {shown(photo.file)} is in two splits; choose one")
        found[photo.file].append(photo)
    return {
        file: replace(photos[0], captions=tuple(text for photo in photos for text in photo.captions))
        for file, photos in found.items()
    }


def _row(row: Any, where: str) -> Photo:
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with file and captions")
    file = row.get("file", row.get("file_name"))
    texts = row.get("captions", row.get("caption", row.get("text")))
    texts = [texts] if isinstance(texts, str) else texts
    split = row.get("split") or split_by_name(str(file))
    evaluation = row.get("evaluation")
    if not isinstance(file, str) or not file:
        raise DataError(f"{where}: names no file")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: captions must be texts, got {brief(texts)}")
    if split not in SPLITS:
        raise DataError(f"{where}: split is {brief(split)}; must be one of {', '.join(SPLITS)}")
    if not isinstance(evaluation, str | None):
        raise DataError(f"{where}: evaluation must be a text, got {brief(evaluation)}")
    return Photo(file, tuple(texts), split, evaluation)


def _from_table(pictures: list[str], table: dict[str, Photo], path: Path) -> list[Photo]:
    if extra := sorted(set(table) - set(pictures)):
        raise DataError(f"{path}: captions but no picture for {listed([shown(name) for name in extra])}")
    none = Photo("", problem="no caption")
    return [replace(table.get(name, none), file=name) for name in pictures]


# Files.


def _pictures(names: Any) -> list[str]:
    return [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]


def _json(files: Files, name: str) -> Any:
    if name not in files.names:
        raise DataError(f"{files.path} has no {name}; the layout eg3d needs the labels of its pictures")
    try:
        return _parsed(_decoded(files.read(name), f"{files.path}: {name}"), f"{files.path}: {name}")
    except Unusable as error:
        raise DataError(f"{files.path}: {name} {error}") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None


def read_labels(content: Any, where: str) -> dict[str, Any]:
    """Return the labels of EG3D's dataset.json by file, unchecked: [[file, [25 numbers]], ...] or {file: [...]}."""
    rows = content.get("labels") if isinstance(content, dict) else None
    if isinstance(rows, dict):
        rows = list(rows.items())
    if not isinstance(rows, list) or not all(
        isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str) for row in rows
    ):
        raise DataError(f'{where} must be {{"labels": [[file, [25 numbers]], ...]}}')
    labels = dict(rows)
    if len(labels) < len(rows):
        twice = next(row[0] for i, row in enumerate(rows) if any(row[0] == other[0] for other in rows[:i]))
        raise DataError(f"{where}: two labels for {shown(twice)}; keep one")
    return labels

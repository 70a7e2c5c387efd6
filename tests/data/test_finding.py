"""Tests of the search for faces in all photographs of a source, with a stand-in for the networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from stand_ins import StandIn, write_photos

from dreamportrait.cli import main
from dreamportrait.core.errors import DataError
from dreamportrait.data.index import Entry, read_index
from dreamportrait.data.preparation import looking, steps
from dreamportrait.data.preparation.landmarks import Face, read_landmarks
from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings

SMALL = Settings(resolution=64, per_shard=4, least_side=32)


class KnownFaces:
    """Finds the faces of stand-ins by the colours of their corners, which are noise, with more digits than files keep.

    stop: the number of pictures after which it is interrupted, as by Ctrl-C.
    """

    looked = 0
    stop = -1

    def __init__(self, made: Sequence[StandIn]) -> None:
        self.faces = [(self._corner(each.picture), each.face) for each in made]

    def __call__(self, picture: Image.Image) -> list[Face]:
        if self.looked == self.stop:
            raise KeyboardInterrupt
        self.looked += 1
        corner = self._corner(picture)
        face = min(self.faces, key=lambda each: np.abs(each[0] - corner).sum())[1]
        return [Face(face.scheme, face.points + 0.001234567)]

    @staticmethod
    def _corner(picture: Image.Image) -> np.ndarray:
        return np.asarray(picture, int)[:40:8, :40:8]


@pytest.fixture
def finder(tmp_path, monkeypatch) -> KnownFaces:
    """Write photographs, one of them damaged and one without captions, and replace the networks."""
    known = KnownFaces(write_photos(tmp_path / "photos"))
    (tmp_path / "photos/003.jpg").write_bytes(b"")
    (tmp_path / "photos/004.txt").unlink()
    monkeypatch.setattr(steps, "FaceFinder", lambda wheel, offline: known)
    return known


def landmarks(tmp_path: Path, *options: object, out: str = "out.jsonl") -> Result:
    arguments = ("data", "landmarks", tmp_path / "photos", tmp_path / out, *options)
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_photograph_has_a_line_also_without_captions(tmp_path, finder):
    result = landmarks(tmp_path)
    assert result.exit_code == 0, result.output
    assert "5 faces in 5 photographs, 1 could not be read" in result.output
    assert "003.jpg: empty file" in result.stderr
    found = read_landmarks(tmp_path / "out.jsonl")
    assert list(found) == ["000.jpg", "001.jpg", "002.jpg", "004.jpg", "005.jpg"]
    assert names(tmp_path) == ["out.jsonl", "photos", "photos-landmarks.jsonl"]


def test_the_same_command_continues_a_stopped_search(tmp_path, finder):
    finder.stop = 2
    result = landmarks(tmp_path)
    assert result.exit_code == 1 and "stopped; the same command continues where it was" in result.output
    assert not (tmp_path / "out.jsonl").exists()
    finder.stop = -1
    assert landmarks(tmp_path).exit_code == 0
    assert finder.looked == 5  # no photograph twice
    assert landmarks(tmp_path, out="whole.jsonl").exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert names(tmp_path) == ["out.jsonl", "photos", "photos-landmarks.jsonl", "whole.jsonl"]


def test_a_stopped_search_in_other_photographs_is_not_mixed(tmp_path, finder):
    finder.stop = 2
    landmarks(tmp_path)
    Image.new("RGB", (300, 300)).save(tmp_path / "photos/001.jpg")
    result = landmarks(tmp_path)
    assert result.exit_code == 1
    assert ".out.jsonl.unfinished holds an unfinished preparation of other data" in result.output
    assert "run that command again, or remove the folder" in result.output


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path, finder):
    (tmp_path / "out.jsonl").write_text("mine")
    result = landmarks(tmp_path)
    assert result.exit_code == 1 and "out.jsonl exists; name another file" in result.output and finder.looked == 0
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert landmarks(tmp_path, "--overwrite").exit_code == 0
    assert len(read_landmarks(tmp_path / "out.jsonl")) == 5


def test_a_full_disk_is_one_message_and_the_same_command_continues(tmp_path, finder, monkeypatch):
    import errno

    write = looking._to_line

    def full(seen: steps.Seen) -> str:
        if seen.file == "002.jpg":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(seen)

    monkeypatch.setattr(looking, "_to_line", full)
    result = landmarks(tmp_path)
    assert result.exit_code == 1 and "is full; free some space, then the same command continues" in result.output
    monkeypatch.setattr(looking, "_to_line", write)
    assert landmarks(tmp_path).exit_code == 0 and len(read_landmarks(tmp_path / "out.jsonl")) == 5


# The same search as the first step of a preparation.


def prepared(tmp_path: Path, out: str, **options) -> dict[str, bytes]:
    prepare(tmp_path / "photos", tmp_path / out, SMALL, **options)
    folder = tmp_path / out
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_preparation_continues_bit_for_bit(tmp_path, finder):
    whole = prepared(tmp_path, "whole")
    finder.looked, finder.stop = 0, 2
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, "out")
    finder.stop = -1
    assert prepared(tmp_path, "out") == whole


def test_landmarks_of_a_file_give_the_same_data_set(tmp_path, finder):
    here = prepared(tmp_path, "here")
    landmarks(tmp_path)
    there = prepared(tmp_path, "there", landmarks=tmp_path / "out.jsonl")
    assert [each for each in read_index(tmp_path / "here") if isinstance(each, Entry)] == [
        each for each in read_index(tmp_path / "there") if isinstance(each, Entry)
    ]
    assert here["00000.tar"] == there["00000.tar"]


def test_changed_photographs_are_prepared_again(tmp_path, finder):
    prepared(tmp_path, "out")
    with Image.open(tmp_path / "photos/001.jpg") as picture:
        picture.save(tmp_path / "photos/001.jpg", quality=60)
    with pytest.raises(DataError, match="was prepared from other data or settings"):
        prepared(tmp_path, "out")

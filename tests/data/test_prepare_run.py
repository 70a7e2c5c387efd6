"""Tests of a whole preparation: its result, continuing, several workers, refused places, a full disk."""

import dataclasses
import errno
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import StandIn, landmarks_of, lines, write_photos

from dreamportrait.core.errors import DataError
from dreamportrait.data.index import Dropped, Entry, read_index
from dreamportrait.data.preparation import run as running
from dreamportrait.data.preparation.pose import angles
from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings

SMALL = Settings(resolution=64, per_shard=4, least_side=32)


def small(**changes) -> Settings:
    return dataclasses.replace(SMALL, **changes)


@pytest.fixture
def photos(tmp_path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def prepared(photos: Path, out: Path, settings: Settings = SMALL, **options) -> list[Entry | Dropped]:
    prepare(photos, out, settings, landmarks=landmarks_of(photos), **options)
    return read_index(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def assert_same_view(rows: list[Entry | Dropped], made: list[StandIn]) -> None:
    """Assert that yaw and pitch were found. The crop's middle differs a little from where the known camera looks."""
    found = angles(np.array([row.camera for row in rows]))
    known = angles(np.stack([each.camera for each in made]))
    assert np.abs(found - known)[:, :2].max() < 1
    assert np.abs(found[:, 2]).max() < 3  # crops stand upright


def test_photographs_become_pictures_with_cameras_and_captions(tmp_path):
    made = write_photos(tmp_path / "photos")
    rows = prepared(tmp_path / "photos", tmp_path / "out")
    assert [row.file for row in rows] == [each.file for each in made]
    assert all(isinstance(row, Entry) for row in rows)
    assert rows[3].captions == ["a face, number 3", "another caption of 3"] and rows[3].evaluation == "a face, number 3"
    assert_same_view(rows, made)
    assert all(row.error < 0.003 for row in rows)
    assert [row.shard for row in rows] == [0, 0, 0, 0, 1, 1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.jsonl", "preparation.json", "shards"}


def test_the_crop_shows_the_face_where_the_camera_says(tmp_path, photos):
    rows = prepared(photos, tmp_path / "out", small(kind="png", resolution=128))
    with tarfile.open(tmp_path / "out/shards/00000.tar") as archive:
        member = archive.extractfile("00000002.png")
        picture = np.asarray(Image.open(member))
    from dreamportrait.data.preparation.head import WORLD_ANCHORS
    from dreamportrait.data.preparation.pose import project

    eyes = project(np.array([rows[2].camera]), WORLD_ANCHORS[:2])[0] * 128
    for x, y in eyes:
        assert picture[int(y), int(x)].max() < 60  # the drawn eyes are black


def test_equal_sources_give_equal_bytes_with_any_number_of_workers(tmp_path, photos):
    prepared(photos, tmp_path / "one")
    prepared(photos, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("stop", [("looking", 3), ("writing", 2), ("writing", 5)])
def test_the_same_command_continues_a_stopped_run(tmp_path, photos, stop):
    def interrupt(step: str, done: int, count: int) -> None:
        if (step, done) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(photos, tmp_path / "out", report=interrupt)
    assert not (tmp_path / "out").exists()
    work = tmp_path / ".out.unfinished"
    finished = sorted(path.name for path in work.glob("shards/*.tar"))
    seen = []
    prepared(photos, tmp_path / "out", report=lambda *each: seen.append(each))
    assert seen[0] == ("looking", 6 if stop[0] == "writing" else 3, 6)  # nothing is looked at twice
    assert finished == (["00000.tar"] if stop == ("writing", 5) else [])
    prepared(photos, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not work.exists()


def test_a_line_that_was_cut_short_is_looked_at_again(tmp_path, photos):
    def interrupt(step: str, done: int, count: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(photos, tmp_path / "out", report=interrupt)
    log = tmp_path / ".out.unfinished" / "seen.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    prepared(photos, tmp_path / "out")
    prepared(photos, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_data_set_is_not_made_again(tmp_path, photos):
    prepared(photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    outcome = prepare(photos, tmp_path / "out", SMALL, landmarks=landmarks_of(photos))
    assert outcome.existed and outcome.pictures == 6 and contents(tmp_path / "out") == before


def test_other_settings_need_overwrite(tmp_path, photos):
    prepared(photos, tmp_path / "out")
    with pytest.raises(DataError, match="other data or settings; name another folder, or --overwrite"):
        prepared(photos, tmp_path / "out", small(resolution=32))
    prepared(photos, tmp_path / "out", small(resolution=32), overwrite=True)
    assert json.loads((tmp_path / "out/preparation.json").read_text())["resolution"] == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos", "photos-landmarks.jsonl"]


def test_an_unfinished_run_with_other_settings_is_not_mixed(tmp_path, photos):
    def interrupt(step: str, done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(photos, tmp_path / "out", report=interrupt)
    with pytest.raises(DataError, match="unfinished preparation of other data or settings"):
        prepared(photos, tmp_path / "out", small(resolution=32))


def test_a_foreign_folder_is_left_alone(tmp_path, photos):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no prepared data set; it is left alone"):
        prepared(photos, tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == {"thesis.txt": b"years of work"}


def test_a_full_disk_is_one_message_and_the_same_command_continues(tmp_path, photos, monkeypatch):
    def full(path: Path, samples: object) -> list[int]:
        if path.name == "00001.tar":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, samples)

    write = running.write_shard
    monkeypatch.setattr(running, "write_shard", full)
    with pytest.raises(DataError, match="is full; free some space, then the same command continues"):
        prepared(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    prepared(photos, tmp_path / "out")
    prepared(photos, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_too_little_space_is_said_before_work(tmp_path, photos, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(running.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="may need .* GB, .* has 0.0 GB left"):
        prepared(photos, tmp_path / "out")


def test_no_usable_photograph_names_reasons(tmp_path):
    write_photos(tmp_path / "photos", 2)
    for path in (tmp_path / "photos").glob("*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="no photograph can be used: 000.jpg: no caption"):
        prepared(tmp_path / "photos", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["photos"]


def test_two_processes_do_not_prepare_the_same(tmp_path, photos):
    def again(step: str, done: int, count: int) -> None:
        with pytest.raises(DataError, match="another process prepares"):
            prepared(photos, tmp_path / "out")

    prepared(photos, tmp_path / "out", report=again)
    assert not list(tmp_path.glob(".*"))


def test_mirror_images_have_mirrored_cameras_and_no_sides_in_captions(tmp_path):
    made = write_photos(tmp_path / "photos", 3)
    (tmp_path / "photos/001.txt").write_text("her hair falls to the left\na smiling face\n")
    (tmp_path / "photos/002.txt").write_text("looking right\n")
    names = [f"{i:03d}.jpg" for i in range(3)]
    table = [
        {
            "file": n,
            "split": "train",
            "captions": (tmp_path / "photos" / n).with_suffix(".txt").read_text().splitlines(),
        }
        for n in names
    ]
    captions = tmp_path / "all.jsonl"
    captions.write_text("".join(json.dumps(row) + "\n" for row in table))
    rows = prepared(tmp_path / "photos", tmp_path / "out", small(mirror=True, kind="png"), captions=captions)
    by_name = {row.file: row for row in rows}
    assert set(by_name) == {*names, "000.jpg#mirrored", "001.jpg#mirrored"}
    assert by_name["001.jpg#mirrored"].captions == ["a smiling face"]
    assert by_name["001.jpg#mirrored"].evaluation == "a smiling face"
    plain, turned = by_name["000.jpg"], by_name["000.jpg#mirrored"]
    assert np.allclose(np.array(turned.angles) * [-1, 1, -1], plain.angles, atol=1e-3)
    first, second = (_picture(tmp_path / "out", row) for row in (plain, turned))
    assert np.array_equal(first[:, ::-1], second)
    assert made[0].file == plain.file


def test_no_mirror_images_by_default(tmp_path, photos):
    assert not any("mirrored" in row.file for row in prepared(photos, tmp_path / "out"))


def _picture(out: Path, row: Entry) -> np.ndarray:
    with (out / f"shards/{row.shard:05d}.tar").open("rb") as file:
        file.seek(row.offset)
        import io

        return np.asarray(Image.open(io.BytesIO(file.read(row.size))))


def test_landmarks_of_five_points_are_enough(tmp_path):
    made = write_photos(tmp_path / "photos", scheme="points5")
    rows = prepared(tmp_path / "photos", tmp_path / "out")
    assert_same_view(rows, made)


def test_settings_and_arguments_are_checked_before_work(tmp_path, photos):
    for changes, message in (
        ({"resolution": 8}, "resolution=8"),
        ({"kind": "gif"}, "kind='gif'"),
        ({"quality": 0}, "quality=0"),
    ):
        with pytest.raises(DataError, match=message):
            small(**changes)
    with pytest.raises(DataError, match="add --aligned"):
        prepare(photos, tmp_path / "out", SMALL, poses=tmp_path)
    with pytest.raises(DataError, match="need no landmarks"):
        prepare(photos, tmp_path / "out", small(aligned=True), landmarks=landmarks_of(photos))
    with pytest.raises(DataError, match="--aligned needs the cameras"):
        prepare(photos, tmp_path / "out", small(aligned=True))
    with pytest.raises(DataError, match="is not there"):
        prepare(photos, tmp_path / "out", SMALL, landmarks=tmp_path / "none.jsonl")
    (tmp_path / "wrong.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="line 1: must have file, width, height and faces"):
        prepare(photos, tmp_path / "out", SMALL, landmarks=tmp_path / "wrong.jsonl")
    (tmp_path / "poses").mkdir()
    with pytest.raises(DataError, match="holds no .mat or .npz files"):
        prepare(photos, tmp_path / "out", small(aligned=True), poses=tmp_path / "poses")
    assert not list(tmp_path.glob(".out*"))


def test_the_shard_also_holds_what_streaming_needs(tmp_path, photos):
    rows = prepared(photos, tmp_path / "out")
    with tarfile.open(tmp_path / "out/shards/00001.tar") as archive:
        assert archive.getnames() == ["00000004.jpg", "00000004.json", "00000005.jpg", "00000005.json"]
        told = json.load(archive.extractfile("00000005.json"))
    assert told["camera"] == rows[5].camera and told["captions"] == rows[5].captions and told["file"] == "005.jpg"
    assert lines(tmp_path / "out/index.jsonl")[5]["offset"] % 512 == 0

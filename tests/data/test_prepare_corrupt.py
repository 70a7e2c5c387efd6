"""Tests that damaged and unsuitable photographs are dropped with their reasons, and dangerous archives are refused."""

import dataclasses
import io
import json
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from stand_ins import StandIn, found, landmarks_of, stand_in, write_photos

from dreamportrait.core.errors import DataError
from dreamportrait.data.index import Dropped, Entry, read_index
from dreamportrait.data.preparation.files import MOST_RATIO, open_files
from dreamportrait.data.preparation.landmarks import Face, Found, read_landmarks, write_landmarks
from dreamportrait.data.preparation.layouts import open_source
from dreamportrait.data.preparation.pictures import Unusable, fingerprint, open_photo
from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings

SMALL = Settings(resolution=32, least_side=32)


@pytest.fixture
def photos(tmp_path) -> Path:
    write_photos(tmp_path / "photos", 2)
    return tmp_path / "photos"


def add(photos: Path, each: StandIn, content: bytes, captions: bytes | None = b"a caption\n") -> None:
    """Add a photograph with any content, its captions and its landmarks."""
    (photos / each.file).write_bytes(content)
    if captions is not None:
        (photos / each.file).with_suffix(".txt").write_bytes(captions)
    known = list(read_landmarks(landmarks_of(photos)).values())
    write_landmarks(landmarks_of(photos), [*known, found(each)])


def reason(photos: Path, file: str, settings: Settings = SMALL, **options) -> str:
    """Prepare, check that the good photographs were used, and return why a file was dropped."""
    out = photos.with_name("out")
    prepare(photos, out, settings, landmarks=landmarks_of(photos), **options)
    rows = {row.file: row for row in read_index(out)}
    assert isinstance(rows["000.jpg"], Entry) and isinstance(rows["001.jpg"], Entry)
    assert isinstance(rows[file], Dropped), rows[file]
    assert not list(out.parent.glob(".*"))
    return rows[file].dropped


def encoded(picture: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Return a PNG file with any header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


FACE = stand_in("x.jpg", seed=9)
BAD = {
    "truncated": (lambda: encoded(FACE.picture)[:2000], "damaged"),
    "empty": (lambda: b"", "empty file"),
    "a text": (lambda: b"not a picture at all", "no picture, or of an unknown kind"),
    "CMYK": (lambda: encoded(FACE.picture.convert("CMYK")), "CMYK colours: convert it to sRGB"),
    "16 bits": (lambda: encoded(Image.fromarray(np.zeros((240, 240), np.uint16)), "PNG"), "more than 8 bits a channel"),
    "transparent": (lambda: encoded(Image.new("RGBA", (240, 240), (9, 9, 9, 99)), "PNG"), "transparent"),
    "a bomb": (lambda: png(60000, 60000, 8, 2, b"\0" * 1000), "too many pixels"),
    "an animation": (
        lambda: encoded(FACE.picture, "WEBP", save_all=True, append_images=[Image.new("RGB", (240, 240))]),
        "several pictures in one file",
    ),
    "another size": (lambda: encoded(FACE.picture.resize((200, 200))), "is 200 x 200, its landmarks say 240 x 240"),
}


@pytest.mark.parametrize("case", BAD)
def test_unsuitable_pictures_are_dropped(photos, case):
    content, expected = BAD[case]
    add(photos, FACE, content())
    assert reason(photos, "x.jpg").startswith(expected)


CAPTIONS = {
    "none": (None, "no caption"),
    "0 bytes": (b"", "its caption file is empty"),
    "white space": (b" \n\t\n", "its caption file is empty"),
    "not UTF-8": ("une femme âgée".encode("latin-1"), "its captions are not UTF-8 (byte 10)"),
    "replacement characters": ("a wom\ufffdn".encode(), "a caption has unreadable characters"),
    "a novel": (b"word " * 500, "a caption has 2499 characters"),
}


@pytest.mark.parametrize("case", CAPTIONS)
def test_unusable_captions_drop_the_photograph(photos, case):
    content, expected = CAPTIONS[case]
    add(photos, FACE, encoded(FACE.picture), content)
    assert reason(photos, "x.jpg").startswith(expected)


def with_faces(photos: Path, *faces: Face) -> None:
    known = read_landmarks(landmarks_of(photos)) | {"x.jpg": Found("x.jpg", 240, 240, list(faces))}
    write_landmarks(landmarks_of(photos), known.values())


def test_no_face_and_two_faces(photos):
    add(photos, FACE, encoded(FACE.picture))
    with_faces(photos)
    assert reason(photos, "x.jpg") == "no face"
    smaller = Face("mesh468", FACE.face.points * 0.6)
    with_faces(photos, smaller, FACE.face)
    assert reason(photos, "x.jpg", overwrite=True) == "2 faces"
    largest = dataclasses.replace(SMALL, largest=True)
    prepare(photos, photos.with_name("third"), largest, landmarks=landmarks_of(photos))
    row = {row.file: row for row in read_index(photos.with_name("third"))}["x.jpg"]
    assert isinstance(row, Entry) and abs(row.angles[0]) < 1


def test_a_small_face_in_the_background_is_not_counted(photos):
    add(photos, FACE, encoded(FACE.picture))
    with_faces(photos, FACE.face, Face("mesh468", FACE.face.points * 0.2))
    prepare(photos, photos.with_name("out"), SMALL, landmarks=landmarks_of(photos))
    assert all(isinstance(row, Entry) for row in read_index(photos.with_name("out")))


def test_faces_that_are_small_or_cut_off(photos):
    add(photos, FACE, encoded(FACE.picture))
    with_faces(photos, Face("mesh468", FACE.face.points * 0.15 + 90))
    assert re.fullmatch(r"the face is small: its crop has 2\d pixels, at least 32", reason(photos, "x.jpg"))
    with_faces(photos, Face("mesh468", FACE.face.points + 120))
    assert "% of the crop lie outside, at most 30 %" in reason(photos, "x.jpg", overwrite=True)


def test_landmarks_that_are_no_face(photos):
    write_photos(photos, 12)
    add(photos, FACE, encoded(FACE.picture))
    twisted = FACE.face.points.copy()
    twisted[::2] = np.random.default_rng(0).uniform(60, 180, twisted[::2].shape)
    with_faces(photos, Face("mesh468", twisted))
    assert reason(photos, "x.jpg").startswith("no pose fits its landmarks")


def test_a_photograph_without_landmarks(photos):
    (photos / "x.jpg").write_bytes(encoded(FACE.picture))
    (photos / "x.txt").write_text("a caption")
    assert reason(photos, "x.jpg") == "no landmarks in the file that was given"


def test_the_same_file_twice(photos):
    add(photos, FACE, (photos / "000.jpg").read_bytes())
    assert reason(photos, "x.jpg") == "the same file as 000.jpg"


def test_exif_rotation_is_applied():
    upright = FACE.picture
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), quality=95, exif=exif)
    opened = open_photo(turned)
    assert np.abs(np.asarray(opened, int) - np.asarray(upright, int)).mean() < 3


def test_16_bit_colour_becomes_8_bits():
    values = np.arange(4, dtype=">u2").repeat(3).reshape(2, 2, 3) * 257 * 60
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    assert np.asarray(open_photo(png(2, 2, 16, 2, rows))).reshape(4, 3).tolist() == [[60 * i] * 3 for i in range(4)]


def test_opaque_alpha_gray_and_palettes_become_rgb():
    for mode in ("RGBA", "L", "P"):
        opened = open_photo(encoded(Image.new("RGB", (8, 8), (10, 20, 30)).convert(mode), "PNG"))
        assert opened.mode == "RGB" and opened.size == (8, 8)


def test_a_damaged_colour_profile_is_a_reason():
    with pytest.raises(Unusable, match="its colour profile cannot be used"):
        open_photo(encoded(FACE.picture, icc_profile=b"nonsense" * 40))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = open_photo(encoded(FACE.picture, "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(same), np.asarray(FACE.picture))


def test_fingerprints_survive_size_and_quality_and_tell_pictures_apart():
    first = fingerprint(FACE.picture)
    again = Image.open(io.BytesIO(encoded(FACE.picture.resize((180, 180), Image.Resampling.LANCZOS), quality=90)))
    differing = bin(int(first, 16) ^ int(fingerprint(again), 16)).count("1")
    assert differing <= 3  # of 128 bits; flat places may round differently
    assert fingerprint(stand_in("y.jpg", seed=10).picture) != first
    assert fingerprint(Image.new("RGB", (50, 50), "gray")) == "0" * 32


# Folders and archives.


def test_loops_of_links_end_and_broken_links_are_dropped(photos):
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "x.jpg").symlink_to(photos / "x.jpg")
    (photos / "x.txt").write_text("a caption")
    assert [photo.file for photo in open_source(photos, "folder").photos] == ["000.jpg", "001.jpg", "x.jpg"]
    assert reason(photos, "x.jpg").startswith("cannot be read: Too many levels of symbolic links")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_files_are_dropped(photos):
    add(photos, FACE, encoded(FACE.picture))
    (photos / "x.jpg").chmod(0)
    assert reason(photos, "x.jpg").startswith("cannot be read: Permission denied")


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:evil.jpg"])
def test_archives_that_leave_their_folder_are_refused(tmp_path, name):
    path = zipped(tmp_path / "a.zip", **{name: b"x"})
    with pytest.raises(DataError, match="would lie outside of it"):
        open_files(path)


def test_members_that_unpack_to_far_more_are_not_unpacked(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"a.jpg": b"\0" * (MOST_RATIO * 8192)})
    with pytest.raises(Unusable, match="unpacks from"):
        open_files(path).read("a.jpg")


def test_members_that_are_larger_than_they_say_are_not_read(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"a.jpg": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02") + 24  # the unpacked size in the list of files
    content[at : at + 4] = struct.pack("<I", 10)
    path.write_bytes(content)
    with pytest.raises(Unusable):
        open_files(path).read("a.jpg")


def test_a_name_twice_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jpg", b"2")
    with pytest.raises(DataError, match="holds 'a.jpg' twice"):
        open_files(path)


def test_a_damaged_archive_is_refused(tmp_path, photos):
    path = zipped(tmp_path / "a.zip", **{"a.jpg": b"1"})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="neither a folder nor a zip file"):
        open_files(path)
    with pytest.raises(DataError, match="is not there"):
        open_files(tmp_path / "none")


def test_an_archive_is_prepared_like_its_folder(tmp_path, photos):
    members = {path.name: path.read_bytes() for path in photos.iterdir()}
    path = zipped(tmp_path / "photos.zip", **members)
    prepare(path, tmp_path / "from zip", SMALL, landmarks=landmarks_of(photos))
    prepare(photos, tmp_path / "from folder", SMALL, landmarks=landmarks_of(photos))
    assert read_index(tmp_path / "from zip") == read_index(tmp_path / "from folder")


# The hand-over file.

GOOD = {"file": "a.jpg", "width": 9, "height": 9, "faces": [{"scheme": "points5", "points": [[1, 2]] * 5}]}
WRONG = {
    "no JSON": ("{", "is no JSON"),
    "a list": ("[]", "must have file, width, height and faces"),
    "no faces": (json.dumps({"file": "a", "width": 1, "height": 1}), "must have file, width, height and faces"),
    "no size": (json.dumps(GOOD | {"width": 0}), "width and height numbers of pixels"),
    "an unknown scheme": (json.dumps(GOOD | {"faces": [{"scheme": "points7"}]}), "must be one of mesh468, points68"),
    "too few points": (json.dumps(GOOD | {"faces": [{"scheme": "points5", "points": [[1, 2]]}]}), "must be 5 pairs"),
    "NaN": (json.dumps(GOOD | {"faces": [{"scheme": "points5", "points": [[1, float("nan")]] * 5}]}), "finite numbers"),
    "twice": (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "a second line for 'a.jpg'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_landmarks_name_their_line(tmp_path, case):
    text, expected = WRONG[case]
    path = tmp_path / "landmarks.jsonl"
    path.write_text(json.dumps(GOOD | {"file": "first.jpg"}) + "\n" + text + "\n")
    with pytest.raises(DataError, match=expected) as error:
        read_landmarks(path)
    assert f"{path}, line {3 if case == 'twice' else 2}" in str(error.value)


def test_landmarks_come_back_as_they_were_written(tmp_path):
    write_landmarks(tmp_path / "l.jsonl", [found(FACE)])
    (back,) = read_landmarks(tmp_path / "l.jsonl").values()
    assert back.file == "x.jpg" and (back.width, back.height) == (240, 240)
    assert np.abs(back.faces[0].points - FACE.face.points).max() <= 0.005

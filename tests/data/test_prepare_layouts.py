"""Tests of the layouts of published data sets: which captions and splits their photographs get, and what is refused."""

import json
import struct
from pathlib import Path

import pytest

from dreamportrait.core.errors import DataError
from dreamportrait.data.preparation.captions import clean, clean_captions, names_a_side
from dreamportrait.data.preparation.layouts import Photo, open_source
from dreamportrait.data.preparation.pictures import Unusable
from dreamportrait.data.preparation.splits import split_by_name


def put(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def photos(folder: Path, layout: str = "folder", captions: Path | None = None) -> dict[str, Photo]:
    return {photo.file: photo for photo in open_source(folder, layout, captions).photos}


def test_text_files_beside_pictures(tmp_path):
    put(
        tmp_path,
        **{"a/1.jpg": "", "a/1.txt": "one\ntwo\n", "2.png": "", "2.png.txt": "three", "3.webp": "", "x.md": ""},
    )
    found = photos(tmp_path)
    assert list(found) == ["2.png", "3.webp", "a/1.jpg"]
    assert found["a/1.jpg"].captions == ("one", "two") and found["2.png"].captions == ("three",)
    assert found["3.webp"].problem == "no caption"


def test_jsonl_and_its_other_names(tmp_path):
    rows = [
        {"file": "1.jpg", "captions": ["one", "two"], "evaluation": "three", "split": "test"},
        {"file_name": "2.jpg", "text": "four"},
    ]
    put(tmp_path, **{"1.jpg": "", "2.jpg": "", "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    found = photos(tmp_path)
    assert found["1.jpg"] == Photo("1.jpg", ("one", "two"), "test", "three")
    assert found["2.jpg"] == Photo("2.jpg", ("four",), split_by_name("2.jpg"))


def test_csv_with_several_rows_for_a_picture(tmp_path):
    text = '\ufefffile,caption,split\n1.jpg,"one, and more",train\n1.jpg,two,train\n2.jpg,three,\n'
    put(tmp_path, **{"1.jpg": "", "2.jpg": "", "3.jpg": "", "captions.csv": text})
    found = photos(tmp_path)
    assert found["1.jpg"].captions == ("one, and more", "two") and found["1.jpg"].split == "train"
    assert found["2.jpg"].split == split_by_name("2.jpg")
    assert found["3.jpg"].problem == "no caption"


def test_a_given_file_goes_before_those_in_the_source(tmp_path):
    put(tmp_path / "in", **{"1.jpg": "", "1.txt": "beside"})
    put(tmp_path, **{"other.jsonl": json.dumps({"file": "1.jpg", "caption": "given"})})
    assert photos(tmp_path / "in", captions=tmp_path / "other.jsonl")["1.jpg"].captions == ("given",)


TABLES = {
    "no picture": ('{"file": "2.jpg", "caption": "x"}', "captions but no picture for '2.jpg'"),
    "a second line": ('{"file": "1.jpg", "caption": "x"}\n' * 2, "line 2: a second line for '1.jpg'"),
    "no JSON": ("{", "line 1 is no JSON"),
    "a wrong split": ('{"file": "1.jpg", "caption": "x", "split": "dev"}', "must be one of train, validation, test"),
    "no text": ('{"file": "1.jpg", "captions": [1]}', "captions must be texts"),
    "no file": ('{"caption": "x"}', "line 1: names no file"),
    "a list": ("[]", "must be an object"),
    "no evaluation": ('{"file": "1.jpg", "caption": "x", "evaluation": 3}', "evaluation must be a text"),
}


@pytest.mark.parametrize("case", TABLES)
def test_wrong_tables_name_their_line(tmp_path, case):
    text, expected = TABLES[case]
    put(tmp_path, **{"1.jpg": "", "captions.jsonl": text})
    with pytest.raises(DataError, match=expected):
        photos(tmp_path)


def test_tables_that_are_not_utf8_or_contradict_themselves(tmp_path):
    put(tmp_path, **{"1.jpg": "", "captions.csv": "file,caption\n1.jpg,âge\n".encode("latin-1")})
    with pytest.raises(DataError, match="is not UTF-8: .*save it as UTF-8"):
        photos(tmp_path)
    put(tmp_path, **{"captions.csv": "file,caption,split\n1.jpg,a,train\n1.jpg,b,test\n"})
    with pytest.raises(DataError, match="row 3: '1.jpg' is in two splits"):
        photos(tmp_path)


# CelebAText-HQ.


def celeba(folder: Path, lists: bool = True) -> Path:
    files = {f"CelebAimg/{i}.jpg": "" for i in range(5)}
    files |= {f"captions/{i}.txt": "".join(f"caption {k} of {i}\n" for k in range(10)) for i in range(5)}
    if lists:
        files["data_flist/train.flist"] = "".join(f"/data/face/CelebAimg/{i}.jpg\n" for i in range(3))
        files["data_flist/test.flist"] = "/data/face/CelebAimg/3.jpg\n"
    return put(folder, **files)


def test_celeba_text_hq_follows_the_official_lists(tmp_path):
    found = photos(celeba(tmp_path), "celeba-text-hq")
    assert [found[f"CelebAimg/{i}.jpg"].split for i in range(4)] == ["train", "train", "train", "test"]
    assert found["CelebAimg/2.jpg"].captions == tuple(f"caption {k} of 2" for k in range(10))
    assert found["CelebAimg/4.jpg"].problem == "in no list of a split"


def test_without_lists_the_name_decides(tmp_path):
    found = photos(celeba(tmp_path, lists=False), "celeba-text-hq")
    assert all(photo.split == split_by_name(name) and not photo.problem for name, photo in found.items())


def test_a_picture_in_two_lists_is_dropped(tmp_path):
    celeba(tmp_path)
    put(tmp_path, **{"data_flist/test.flist": "x/2.jpg\nx/3.jpg\n"})
    assert photos(tmp_path, "celeba-text-hq")["CelebAimg/2.jpg"].problem == "in the lists of two splits"


def test_a_layout_that_is_not_there_says_which_folder_is_missing(tmp_path):
    put(tmp_path, **{"1.jpg": ""})
    with pytest.raises(DataError, match="no folder CelebAimg or CelebA-HQ-img or images"):
        photos(tmp_path, "celeba-text-hq")


# FFHQ-Text.


def pickled(names: list[str]) -> bytes:
    """Return a pickled list of texts, as protocol 2 writes it."""
    texts = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() for name in names)
    return b"\x80\x02](" + texts + b"e."


def ffhq(folder: Path, **lists: bytes) -> Path:
    files: dict[str, str | bytes] = {f"Image/0000{i}.png": "" for i in range(4)}
    files |= {f"Text/0000{i}.txt": "".join(f"caption {k} of {i}\n" for k in range(9)) for i in range(4)}
    return put(folder, **files, **lists)


def test_ffhq_text_reads_pickled_lists(tmp_path):
    lists = {"Train/filenames.pkl": pickled(["00000", "00001.png", "00002"]), "Test/filenames.pkl": pickled(["00003"])}
    found = photos(ffhq(tmp_path, **lists), "ffhq-text")
    assert [photo.split for photo in found.values()] == ["train", "train", "train", "test"]
    assert all(len(photo.captions) == 9 for photo in found.values())


def test_ffhq_text_reads_plain_lists(tmp_path):
    found = photos(ffhq(tmp_path, **{"train.txt": b"00000\n00001\n", "test.txt": b"00002\n00003\n"}), "ffhq-text")
    assert [photo.split for photo in found.values()] == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    "content", [b"\x80\x02cos\nsystem\n(S'true'\ntR.", b"\x80\x02}.", pickled(["00000"])[:-5], b"(lp0\nS'x'\np1\na."]
)
def test_pickles_that_are_more_than_a_list_of_names_are_refused(tmp_path, content):
    ffhq(tmp_path, **{"Train/filenames.pkl": content})
    with pytest.raises(DataError, match=r"Write the names to a \.txt file|write them to a \.txt file"):
        photos(tmp_path, "ffhq-text")


# Splits and captions.


def test_splits_by_name_have_their_shares_and_never_change():
    names = [f"{i}.jpg" for i in range(20000)]
    found = [split_by_name(name) for name in names]
    shares = [found.count(split) / len(names) for split in ("train", "validation", "test")]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.01)
    # Values of the first release: data sets that were prepared then must keep their splits.
    assert [split_by_name(name) for name in ("0.jpg", "62.jpg", "13.jpg")] == ["train", "validation", "test"]


def test_captions_are_cleaned():
    assert clean("  a \u201cwoman\u201d\u00a0with\tred\r\n hair\u200b ") == 'a "woman" with red hair'
    assert clean("cafe\u0301") == "caf\u00e9"
    assert clean_captions(["a man", " a  man", "", "a woman"]) == ("a man", "a woman")
    with pytest.raises(Unusable, match="no caption"):
        clean_captions(["", " \n"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("her left eye is closed", True),
        ("a Right-handed man", False),
        ("hair to the RIGHT", True),
        ("he looks leftward", True),
        ("a bright smile, a cleft chin", False),
        ("a right-angled jaw", False),
    ],
)
def test_sides_in_captions(text, expected):
    assert names_a_side(text) is expected

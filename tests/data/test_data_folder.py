"""Tests of data sets on disk, in folders and zip files: reading back what was written, and errors that name damage."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import edit, sample, write

from dreamportrait.core.errors import DataError
from dreamportrait.data.folder import ImageFolder
from dreamportrait.data.writing import Sample, check_free, write_dataset


@pytest.fixture(params=["folder", "set.zip"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "deep" / request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "set")


def check(item, expected: Sample) -> None:
    assert item.image.dtype == torch.uint8 and item.image.is_contiguous()
    assert np.array_equal(item.image.numpy(), expected.image)
    assert item.camera.dtype == torch.float32 and np.array_equal(item.camera.numpy(), expected.camera)
    assert item.captions == expected.captions


# Reading back what was written.


def test_round_trip(written):
    data = ImageFolder(written)
    assert len(data) == 5 and data.resolution == 8
    for i in range(5):
        check(data[i], sample(i))
    assert data.evaluation == [f"the face {i}" for i in range(5)]
    assert data.attributes == [{"gender": "woman", "hat": "none"}] * 5
    assert data.cameras.shape == (5, 25)


def test_layout(folder):
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        *(f"00000/img{i:08d}.png" for i in range(5)),
        "attributes.jsonl",
        "captions.jsonl",
        "dataset.json",
        "world.json",
    ]
    (name, label), *rest = json.loads((folder / "dataset.json").read_text())["labels"]
    assert name == "00000/img00000000.png" and label == sample(0).camera.tolist() and len(rest) == 4
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[1]) == {
        "file": "00000/img00000001.png",
        "captions": sample(1).captions,
        "evaluation": "the face 1",
    }
    assert json.loads((folder / "world.json").read_text()) == {"split": "train"}
    with Image.open(folder / name) as image:
        assert image.mode == "RGB" and np.array_equal(np.asarray(image).transpose(2, 0, 1), sample(0).image)


@pytest.mark.lengthy
def test_a_thousand_images_to_a_subfolder(tmp_path):
    one = sample(0, size=1)
    write_dataset(tmp_path / "set.zip", (one for _ in range(1001)))
    data = ImageFolder(tmp_path / "set.zip")
    assert data.files[999:] == ["00000/img00000999.png", "00001/img00001000.png"]


def test_zip_files_are_reproducible(tmp_path):
    one, two = (write(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == two


def test_without_captions(folder):
    (folder / "captions.jsonl").unlink()
    (folder / "attributes.jsonl").unlink()
    data = ImageFolder(folder, captions=False)
    assert data[2].captions == [] and data.evaluation == [] and data.attributes == []
    with pytest.raises(DataError, match=r"set has no captions\.jsonl"):
        ImageFolder(folder)


def test_pickled_for_a_loader(written):
    data = pickle.loads(pickle.dumps(ImageFolder(written)))
    check(data[1], sample(1))


def test_each_process_opens_a_zip_file_itself(tmp_path, monkeypatch):
    data = ImageFolder(write(tmp_path / "set.zip"))
    opened = data._files._zip()
    assert data._files._zip() is opened
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert data._files._zip() is not opened  # a file position shared after a fork would corrupt both
    check(data[3], sample(3))


# Damaged data sets.


def edit_labels(folder: Path, change: Callable[[list], object]) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content["labels"])
    (folder / "dataset.json").write_text(json.dumps(content))


def edit_line(folder: Path, index: int, **changes: object) -> None:
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text(encoding="utf-8").rstrip().split("\n")]
    lines[index] |= changes
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(2), r"dataset\.json: no label for 00000/img00000002\.png\. Copy"),
        (lambda rows: rows.append(["../x.png", rows[0][1]]), r"a label but no image for '\.\./x\.png'"),
        (lambda rows: rows.append(rows[0]), "6 labels for 5 files"),
        (lambda rows: rows[1][1].pop(), r"a label is a list of 25 numbers; 00000/img00000001\.png has 24$"),
        (lambda rows: rows[1][1].__setitem__(3, "1.0"), r"img00000001\.png has a value that is not a finite"),
        (
            lambda rows: rows[1][1].__setitem__(3, float("nan")),
            r"img00000001\.png has a value that is not a finite",
        ),
        (lambda rows: rows[1].__setitem__(1, None), r"img00000001\.png has 'None'"),
        (lambda rows: rows[3][1].__setitem__(0, 2.0), r"camera 3 of 5: the pose must be a rotation.*order of file"),
        (lambda rows: rows.append("x"), r'must be \{"labels": \[\[file, \[25 numbers\]\], \.\.\.\]\}'),
    ],
)
def test_bad_labels(folder, change, message):
    edit_labels(folder, change)
    with pytest.raises(DataError, match=message):
        ImageFolder(folder)


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (
            1,
            {"file": "00000/img00000099.png"},
            r"no line for 00000/img00000001\.png; a line but no image for '00000/img",
        ),
        (1, {"file": "00000/img00000000.png"}, r"line 2: second line for 00000/img00000000\.png"),
        (1, {"file": 5}, 'line 2: no "file" named'),
        (2, {"captions": []}, r"line 3: \"captions\" must be a list of at least one text, got '\[\]'"),
        (2, {"captions": "a woman"}, r"line 3: \"captions\" must be a list"),
        (2, {"captions": ["a", 1]}, r"line 3: \"captions\" must be a list"),
        (4, {"evaluation": None}, r"line 5: \"evaluation\" must be a text, got 'None'"),
    ],
)
def test_bad_captions(folder, index, changes, message):
    edit_line(folder, index, **changes)
    with pytest.raises(DataError, match=message):
        ImageFolder(folder)


def test_bad_files(folder):
    edit(folder / "attributes.jsonl", lambda text: text.replace('"woman"', "3", 1))
    with pytest.raises(DataError, match=r"attributes\.jsonl, line 1: \"attributes\" must be texts by name"):
        ImageFolder(folder)
    edit(folder / "captions.jsonl", lambda text: text[: len(text) // 2])
    with pytest.raises(DataError, match=r"captions\.jsonl, line \d is no JSON"):
        ImageFolder(folder)
    (folder / "captions.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"captions\.jsonl is not UTF-8"):
        ImageFolder(folder)
    (folder / "dataset.json").write_text('{"labels": null}')
    with pytest.raises(DataError, match=r"dataset\.json must be"):
        ImageFolder(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"has no dataset\.json"):
        ImageFolder(folder)


def test_no_data_set(tmp_path):
    with pytest.raises(DataError, match="nowhere is not there"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        ImageFolder(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match=r"text\.zip is neither a folder nor a zip file"):
        ImageFolder(tmp_path / "text.zip")


def save(folder: Path, index: int, image: Image.Image) -> None:
    image.save(folder / f"00000/img{index:08d}.png")


def test_bad_images(folder):
    data = ImageFolder(folder)
    path = folder / "00000/img00000001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"img00000001\.png cannot be read: .*Restore the file"):
        data[1]
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"img00000001\.png cannot be read"):
        data[1]
    path.unlink()
    with pytest.raises(DataError, match=r"img00000001\.png cannot be read"):
        data[1]
    save(folder, 2, Image.new("L", (8, 8)))
    with pytest.raises(DataError, match=r"img00000002\.png has mode L; images must be RGB"):
        data[2]
    save(folder, 3, Image.new("RGB", (8, 9)))
    with pytest.raises(DataError, match=r"img00000003\.png is 8 x 9; must be 8 x 8"):
        data[3]
    save(folder, 4, Image.new("RGB", (4, 4)))
    with pytest.raises(DataError, match=r"img00000004\.png is 4 x 4; must be 8 x 8"):
        data[4]
    check(data[0], sample(0))
    save(folder, 0, Image.new("RGB", (8, 9)))
    path.write_bytes((folder / "00000/img00000002.png").read_bytes())
    with pytest.raises(DataError, match=r"img00000000\.png is 8 x 9; must be 8 x 8"):
        ImageFolder(folder)


def test_a_damaged_zip_file(tmp_path):
    path = write(tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # in the first image
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"img00000000\.png cannot be read: Bad CRC-32"):
        ImageFolder(path)


# Writing.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((8, 8, 3), np.uint8)}, r"sample 1: image must be \[3, R, R\] of uint8, got \[8, 8, 3\]"),
        ({"image": np.zeros((3, 8, 8), np.float32)}, r"got \[3, 8, 8\] of float32"),
        ({"image": np.zeros((3, 9, 9), np.uint8)}, r"image is \[3, 9, 9\], those before \[3, 8, 8\]"),
        ({"camera": np.zeros(16, np.float32)}, r"camera must have 25 numbers, got shape \[16\]"),
        ({"camera": np.full(25, np.nan, np.float32)}, "the pose must be a rotation"),
        ({"captions": []}, r"captions must be a list of at least one text, got \[\]"),
        ({"captions": "a woman"}, "got 'a woman'"),
        ({"attributes": None}, "attributes must be given for all samples or for none"),
    ],
)
@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_bad_samples_leave_no_trace(tmp_path, name, changes, message):
    with pytest.raises(DataError, match=message):
        write_dataset(tmp_path / name, [sample(0), sample(1, **changes)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_an_error_keeps_the_old_data_set(tmp_path, name):
    out = write(tmp_path / name)

    def broken():
        yield sample(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, broken(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(ImageFolder(out)) == 5
    with pytest.raises(DataError, match="no samples were given"):
        write_dataset(out, [], overwrite=True)
    assert len(ImageFolder(out)) == 5


def test_only_data_sets_are_replaced_and_only_when_asked(written):
    with pytest.raises(DataError, match=r"exists; name another place, or allow overwriting"):
        write_dataset(written, map(sample, range(2)))
    assert len(ImageFolder(written)) == 5
    write(written, 2, overwrite=True)
    assert len(ImageFolder(written)) == 2
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_what_is_never_replaced(folder, tmp_path):
    (folder / "00000" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"other files \(00000/notes\.txt\) and is left alone"):
        check_free(folder, overwrite=True)
    (tmp_path / "other").mkdir()
    check_free(tmp_path / "other", overwrite=False)  # an empty folder is free
    (tmp_path / "other" / "img.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no dataset\.json, so it is no data set"):
        check_free(tmp_path / "other", overwrite=True)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(DataError, match=r"holds no dataset\.json"):
        check_free(tmp_path / "mine.zip", overwrite=True)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(DataError, match="is a folder and is left alone"):
        check_free(tmp_path / "folder.zip", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is no folder and is left alone"):
        check_free(tmp_path / "file", overwrite=True)

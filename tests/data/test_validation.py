"""Tests that validation finds every planted problem, names its row, and finds nothing in a sound data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from stand_ins import camera_at, landmarks_of, stand_in, write_photos

from dreamportrait.cli import main
from dreamportrait.data.contact import draw_head
from dreamportrait.data.exporting import export
from dreamportrait.data.folder import ImageFolder
from dreamportrait.data.index import read_index
from dreamportrait.data.preparation.pose import PIVOT, project
from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.shards import ShardPictures
from dreamportrait.data.summary import as_text, summarise
from dreamportrait.data.validation import validate

COUNT = 6


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "photos", COUNT)
    (folder / "photos" / "broken.jpg").write_bytes(b"")
    (folder / "photos" / "broken.txt").write_text("a caption")
    prepare(
        folder / "photos",
        folder / "out",
        Settings(resolution=32, least_side=32),
        landmarks=landmarks_of(folder / "photos"),
    )
    return folder / "out"


@pytest.fixture
def copy(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def change(folder: Path, number: int, **changes: object) -> None:
    lines = (folder / "index.jsonl").read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | changes)
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def problems(folder: Path) -> list[str]:
    return [str(problem) for problem in validate(folder).problems]


def test_a_sound_data_set_has_no_problems(sound):
    report = validate(sound)
    assert not report.problems and report.pictures == COUNT and report.dropped == 1 and len(report.rows) == COUNT


good = camera_at(5, 5).tolist()
far = camera_at(5, 5)
far[[3, 7, 11]] *= 2
PLANTED = {
    "24 numbers": ({"camera": good[:24]}, "its label has 24 numbers, not 25"),
    "no rotation": ({"camera": [0.5, *good[1:]]}, "the pose of its label is no rotation"),
    "NaN": ({"camera": [float("nan"), *good[1:]]}, "its label holds NaN or infinity"),
    "pixels": ({"camera": [*good[:18], 256.0, *good[19:]]}, "its intrinsics are not divided by the size"),
    "far away": ({"camera": far.tolist()}, "its camera is 5.7"),
    "behind": ({"camera": camera_at(170, 0).tolist()}, "yaw 170, pitch 0 degrees: no view of a face"),
    "no captions": ({"captions": []}, "has no caption"),
    "an empty caption": ({"captions": [" "]}, "a caption is ' ', no text"),
    "an unreadable caption": ({"captions": ["a wom\ufffdn"]}, "a caption has unreadable characters"),
    "an unclean caption": ({"evaluation": "two\nlines"}, "a caption is not clean"),
    "an unknown split": ({"split": "dev"}, "split 'dev'"),
    "a name twice": ({"file": "000.jpg"}, "its name occurs twice, also in"),
    "another hash": ({"sha256": "0" * 64}, "its picture is not the one that was written"),
    "another place": ({"offset": 3}, "its picture is not the one that was written"),
    "no shard": ({"shard": 9}, "00009.tar cannot be read"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_problems_are_found_with_their_row(copy, case):
    changes, expected = PLANTED[case]
    change(copy, 2, **changes)
    found = problems(copy)
    name = changes.get("file", "002.jpg")
    assert any(expected in each and f"index.jsonl, line 3 ({name})" in each for each in found), found


def test_pictures_twice_and_in_two_splits(copy):
    first = json.loads((copy / "index.jsonl").read_text().splitlines()[0])
    same = {key: first[key] for key in ("shard", "offset", "size", "sha256")}
    change(copy, 0, split="train")
    change(copy, 2, split="train", **same)
    (found,) = problems(copy)
    assert "line 3 (002.jpg): the same picture is there twice, also in" in found and "line 1 (000.jpg)" in found
    change(copy, 2, split="test")
    (found,) = problems(copy)
    assert "line 3 (002.jpg): split leakage: the same picture is in train" in found


def test_a_picture_of_another_quality_in_two_splits(tmp_path):
    folder = tmp_path / "photos"
    made = write_photos(folder, 3)
    made[0].picture.save(folder / "002.jpg", quality=93)  # 000.jpg has 95
    lines = [json.loads(line) for line in landmarks_of(folder).read_text().splitlines()]
    lines[2] = lines[0] | {"file": "002.jpg"}
    landmarks_of(folder).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [{"file": f"00{i}.jpg", "caption": "a face", "split": ["train", "train", "test"][i]} for i in range(3)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(folder, tmp_path / "out", Settings(resolution=32, least_side=32), landmarks=landmarks_of(folder))
    (found,) = problems(tmp_path / "out")
    assert "line 3 (002.jpg): split leakage: a picture that looks the same is in train" in found


def test_pictures_that_differ_are_not_lookalikes_by_their_fingerprints_alone():
    import io

    from dreamportrait.data.lookalikes import Lookalikes
    from dreamportrait.data.preparation.pictures import fingerprint

    def add(picture: Image.Image) -> list[int]:
        file = io.BytesIO()
        picture.save(file, "PNG")
        looks.append(fingerprint(picture))
        return list(found.add(len(looks), looks[-1], picture, file.getvalue))

    found, looks = Lookalikes(), []
    bright = stand_in("a.jpg").picture
    dark = bright.point(lambda value: value // 2)
    assert [add(each) for each in (bright, dark, bright.resize((200, 200)))] == [[], [], [1]]
    assert sum(a != b for a, b in zip(looks[0], looks[1], strict=True)) <= 1  # so the pixels told them apart
    assert [add(Image.new("RGB", (40, 40), colour)) for colour in ("gray", "gray")] == [[], []]  # plain ones


def test_a_damaged_line_is_named(copy):
    path = copy / "index.jsonl"
    path.write_text(path.read_text()[:-30])
    assert any("index.jsonl, line 7 is no JSON" in each for each in problems(copy))


def test_the_command_names_problems_draws_the_sheet_and_ends_with_1(copy):
    result = run("data", "validate", copy)
    assert result.exit_code == 0 and f"{COUNT} pictures, 0 problems" in result.output
    with Image.open(copy / "contact.png") as sheet:
        assert sheet.width == 6 * 192
    change(copy, 1, captions=[])
    result = run("data", "validate", copy, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["problems"] == [{"where": f"{copy}/index.jsonl, line 2 (001.jpg)", "what": "has no caption"}]


def test_quick_reads_no_pictures(copy):
    (copy / "shards/00000.tar").write_bytes(b"")
    assert run("data", "validate", copy, "--quick", "--sheet", copy.parent / "s.png").exit_code == 0
    assert run("data", "validate", copy).exit_code == 1


def test_statistics(sound):
    facts = summarise(sound)
    assert sum(facts["pictures"].values()) == COUNT and facts["dropped"] == {
        "no landmarks in the file that was given": 1
    }
    assert facts["yaw"]["0 %"] == pytest.approx(-20, abs=1) and facts["yaw"]["100 %"] == pytest.approx(20, abs=1)
    assert facts["captions_each"]["50 %"] == 2 and facts["different_captions"] == 2 * COUNT
    assert "1 x no landmarks in the file that was given" in as_text(facts)
    assert json.loads(run("data", "stats", sound, "--json").output) == json.loads(json.dumps(facts))


def test_the_drawn_axes_lie_where_the_camera_sees_them():
    from PIL import ImageDraw

    camera = camera_at(30, 10)
    picture = Image.new("RGB", (300, 300))
    draw_head(ImageDraw.Draw(picture), camera, 300)
    tip, top = project(camera[None], PIVOT + np.array([[0, 0, 0.15], [0, 0.15, 0]]))[0] * 300
    assert picture.getpixel((int(tip[0]), int(tip[1]))) == (70, 130, 255)
    assert picture.getpixel((int(top[0]), int(top[1]))) == (60, 220, 60)


# EG3D's format.


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_exported_data_sets_are_eg3d_s_and_come_back(sound, tmp_path, name):
    assert export(sound, tmp_path / name, "all") == COUNT
    data, pictures = ImageFolder(tmp_path / name), ShardPictures(sound, "all")
    assert np.array_equal(data[3].image, pictures.image(3)) and data[3].captions == pictures.captions(3)
    assert np.array_equal(data.cameras, pictures.cameras)
    settings = Settings("eg3d", resolution=32, aligned=True, kind="png")
    prepare(tmp_path / name, tmp_path / "back", settings)
    back = ShardPictures(tmp_path / "back", "all")
    assert np.allclose(back.cameras, pictures.cameras) and np.array_equal(back.image(3), pictures.image(3))
    assert not validate(tmp_path / "back").problems


def test_eg3d_labels_that_are_wrong_drop_their_pictures(sound, tmp_path):
    export(sound, tmp_path / "set", "all")
    path = tmp_path / "set/dataset.json"
    labels = json.loads(path.read_text())
    labels["labels"][0][1].pop()
    labels["labels"][1][1][0] = float("nan")
    del labels["labels"][2]
    path.write_text(json.dumps(labels))
    found = problems(tmp_path / "set")
    for number, what in ((1, "its label has 24 numbers"), (2, "its label holds NaN"), (3, "has no label")):
        assert any(f"picture {number} (00000/img" in each and what in each for each in found), found
    prepare(tmp_path / "set", tmp_path / "back", Settings("eg3d", resolution=32, aligned=True))
    dropped = [row.dropped for row in read_index(tmp_path / "back") if hasattr(row, "dropped")]
    assert dropped == ["its label has 24 numbers, not 25", "its label holds NaN or infinity", "has no label"]


def test_pictures_of_eg3d_that_are_damaged_or_of_another_size_are_named(sound, tmp_path):
    export(sound, tmp_path / "set", "all")
    first, second, third = sorted((tmp_path / "set/00000").iterdir())[1:4]
    Image.new("RGB", (16, 16), "red").save(first)
    second.write_bytes(second.read_bytes()[:-200])
    Image.new("L", (32, 32), "gray").save(third)
    found = problems(tmp_path / "set")
    for number, what in ((2, "is 16 x 16, not 32 x 32"), (3, "cannot be decoded"), (4, "has mode L, not RGB")):
        assert any(f"picture {number} (00000/img" in each and what in each for each in found), found
    assert len(found) == 3


def test_aligned_pictures_must_be_square_and_large_enough(sound, tmp_path):
    export(sound, tmp_path / "set", "all")
    Image.new("RGB", (32, 30)).save(tmp_path / "set/00000/img00000000.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "set/00000/img00000001.png")
    prepare(tmp_path / "set", tmp_path / "back", Settings("eg3d", resolution=32, aligned=True))
    dropped = [row.dropped for row in read_index(tmp_path / "back") if hasattr(row, "dropped")]
    assert dropped[0].startswith("is 32 x 30; pictures that are aligned already must be square")
    assert dropped[1].startswith("is 16 x 16, smaller than the resolution 32")


def test_the_command_exports(sound, tmp_path):
    result = run("data", "export", sound, tmp_path / "e.zip", "--split", "all")
    assert result.exit_code == 0 and f"{COUNT} pictures" in result.output
    result = run("data", "export", tmp_path / "e.zip", tmp_path / "f")
    assert result.exit_code == 1 and "is no prepared data set" in result.output

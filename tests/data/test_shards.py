"""Tests of reading prepared data sets: any picture, any split, exact continuation, shards of one's own, streaming."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import landmarks_of, write_photos
from toy_pictures import ToyText

from dreamportrait.core.config import Data
from dreamportrait.core.errors import DataError
from dreamportrait.data.dataset import TrainingData, make_pictures
from dreamportrait.data.index import Entry, read_index
from dreamportrait.data.loader import Loader, ShardOrder
from dreamportrait.data.names import check_source, split_source
from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.preparation.tars import encode
from dreamportrait.data.shards import ShardPictures, decode
from dreamportrait.data.sources import open_pictures

COUNT = 12


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Prepare twelve pictures in three shards: eight to train, two each to validate and test."""
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "photos", COUNT)
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    rows = [
        {"file": f"{i:03d}.jpg", "captions": [f"face {i}, caption {k}" for k in range(3)], "split": split}
        for i, split in enumerate(splits)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(resolution=32, per_shard=4, least_side=32, kind="png")
    photos, captions = folder / "photos", folder / "captions.jsonl"
    prepare(photos, folder / "out", settings, landmarks=landmarks_of(photos), captions=captions)
    return folder / "out"


def test_splits_hold_their_pictures_in_order(out):
    sizes = {split: len(ShardPictures(out, split)) for split in ("train", "validation", "test", "all")}
    assert sizes == {"train": 8, "validation": 2, "test": 2, "all": 12}
    pictures = ShardPictures(out, "test")
    assert pictures.captions(1) == [f"face 11, caption {k}" for k in range(3)]
    assert pictures.evaluation_caption(1) == "face 11, caption 0"
    assert pictures.resolution == 32 and pictures.cameras.shape == (2, 25)
    assert pictures.image(1).shape == (3, 32, 32) and pictures.image(1).dtype == torch.uint8


def test_pictures_are_those_in_the_archive(out):
    pictures = ShardPictures(out, "all")
    for i in (11, 0, 5, 4, 11):
        expected = np.asarray(Image.open(io.BytesIO(pictures.content(i)))).transpose(2, 0, 1)
        assert np.array_equal(pictures.image(i).numpy(), expected)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_kinds_of_pictures(kind):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)).resize((16, 16))
    image = decode(encode(picture, kind, 100), 16, "x").permute(1, 2, 0).numpy()
    difference = np.abs(image.astype(int) - np.asarray(picture)).max()
    assert difference == 0 if kind != "jpg" else difference < 12
    with pytest.raises(DataError, match="x is 16 x 16 in mode RGB; must be 8 x 8 RGB"):
        decode(encode(picture, kind, 100), 8, "x")
    with pytest.raises(DataError, match="x cannot be decoded"):
        decode(b"nonsense", 16, "x")
    with pytest.raises(DataError, match="x cannot be decoded: .*; prepare the data set again"):
        decode(encode(picture, kind, 100)[:-40], 16, "x")


def test_other_modes_are_refused():
    for mode in ("L", "CMYK"):
        file = io.BytesIO()
        Image.new(mode, (16, 16)).save(file, "JPEG")
        with pytest.raises(DataError, match=f"x is 16 x 16 in mode {mode}; must be 16 x 16 RGB"):
            decode(file.getvalue(), 16, "x")


def test_the_configuration_and_the_evaluation_read_them_by_name(out):
    assert len(make_pictures(Data(kind="folder", path=str(out)))) == 8
    assert len(make_pictures(Data(kind="folder", path=f"{out}:all", count=5))) == 5
    assert len(open_pictures(f"{out}:validation")) == 2
    check_source(f"{out}:test")
    assert split_source(f"{out}:test") == (out, "test") and split_source(out) == (out, None)
    with pytest.raises(DataError, match="is not there"):
        check_source(f"{out}:dev")
    with pytest.raises(DataError, match="has captions of its own"):
        make_pictures(Data(kind="folder", path=str(out), captions="x.jsonl"))
    with pytest.raises(DataError, match="8 images, 9 are asked for; lower data.count"):
        make_pictures(Data(kind="folder", path=str(out), count=9))


def test_a_name_with_a_colon_is_a_name(tmp_path):
    (tmp_path / "a:test").mkdir()
    assert split_source(tmp_path / "a:test") == (tmp_path / "a:test", None)


def loader(pictures: ShardPictures, **options) -> Loader:
    return Loader(TrainingData(pictures), ToyText(), **{"seed": 1, "batch": 4, "total": 24, **options})


def images(found: list) -> list[torch.Tensor]:
    return [batch.image for batch in found]


@pytest.mark.parametrize("shards", [False, True])
def test_a_run_continues_in_the_middle_of_an_epoch(out, shards):
    pictures = ShardPictures(out)
    own = {"shards": pictures.shards} if shards else {}
    whole = loader(pictures, **own)
    expected = list(whole)
    first = loader(pictures, **own)
    for batch, _ in zip(first, range(3), strict=False):
        assert len(batch) == 4
    # The picture after the last one that was used may have been drawn already, so the state counts batches handed out.
    second = loader(ShardPictures(out), **own)
    second.load_state_dict({"images": 12})
    rest = list(second)
    assert len(rest) == 3
    for a, b in zip(rest, expected[3:], strict=True):
        assert torch.equal(a.image, b.image) and a.real.words == b.real.words and a.fake.words == b.fake.words


@pytest.mark.lengthy
def test_reader_processes_read_the_same(out):
    here = images(list(loader(ShardPictures(out))))
    there = images(list(loader(ShardPictures(out), workers=2)))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_processes_share_an_epoch_without_overlap(out):
    pictures = ShardPictures(out)
    for own in ({}, {"shards": pictures.shards}):
        parts = [loader(pictures, rank=r, processes=2, total=8, **own) for r in range(2)]
        numbers = [[words.image for batch in part for words in batch.real.words] for part in parts]
        assert sorted(numbers[0] + numbers[1]) == list(range(8))


# Shards of one's own.


def test_processes_read_shards_of_their_own():
    shards = [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    order = ShardOrder(shards, seed=3, processes=2)
    epochs = [[order.draw(k).image for k in range(24 * epoch, 24 * epoch + 24)] for epoch in range(3)]
    for drawn in epochs:
        assert sorted(drawn) == list(range(24))
        assert [{shards[image] for image in drawn[rank::2]} for rank in range(2)] == [{0, 2}, {1, 3}]
    assert len(set(map(tuple, epochs))) == 3
    again = ShardOrder(shards, seed=3, processes=2)
    assert [again.draw(k) for k in (30, 5, 70)] == [order.draw(k) for k in (30, 5, 70)]


@pytest.mark.parametrize("sizes", [(7, 5, 3), (9, 1, 1, 1), (4, 4, 3, 2)])
def test_uneven_shards_stay_apart_and_each_process_reads_all_of_its_own(sizes, caplog):
    shards = [number for number, size in enumerate(sizes) for _ in range(size)]
    order = ShardOrder(shards, seed=0, processes=3)
    assert "times as often as others; more, smaller shards (--per-shard)" in caplog.text
    read = []
    for process, own in enumerate(order.own):
        drawn = [order.draw(process + 3 * k).image for k in range(4 * len(own))]
        turns = [drawn[i : i + len(own)] for i in range(0, len(drawn), len(own))]
        assert all(sorted(turn) == own.tolist() for turn in turns)
        read.append({shards[image] for image in drawn})
    assert sum(map(len, read)) == len(set.union(*read)) == len(sizes)


def test_fewer_shards_than_processes_are_refused(out):
    pictures = ShardPictures(out)
    with pytest.raises(ValueError, match="2 shards for 4 processes.*--per-shard.*or leave data.own_shards out"):
        loader(pictures, processes=4, shards=pictures.shards)


def without_shards_of_others(out: Path, folder: Path, rank: int) -> Loader:
    """Return the loader of one of two processes, whose disk holds its own shards alone."""
    import shutil

    shutil.copytree(out, folder)
    pictures = ShardPictures(folder, whole=False)
    own = loader(pictures, shards=pictures.shards, rank=rank, processes=2, workers=2, batch=2, total=16)
    assert isinstance(own.order, ShardOrder)
    needed = {pictures.entries[i].shard for i in own.order.own[rank]}
    for path in (folder / "shards").iterdir():
        if int(path.stem) not in needed:
            path.unlink()
    with pytest.raises(DataError, match="shards 0000. are missing|shards 0000..tar are missing"):
        ShardPictures(folder)
    pictures.check(own.order.own[rank])
    return own


@pytest.mark.slow
def test_two_ranks_with_two_workers_each_read_disjoint_shards_and_continue_in_the_middle(out, tmp_path):
    read = []
    for rank in range(2):
        own = without_shards_of_others(out, tmp_path / f"{rank}", rank)
        pictures = own.data.pictures
        whole = list(own)
        drawn = [batch.real.words[0].image for batch in whole]
        assert sorted(drawn[:4]) == sorted(drawn[4:]) == own.order.own[rank].tolist()  # twice through its own
        read.append({pictures.entries[i].shard for i in drawn})
        assert all(torch.equal(b.pixels[0], ShardPictures(out).image(i)) for b, i in zip(whole, drawn, strict=True))
        own.load_state_dict({"images": 6})  # three of the eight batches; four are a turn
        rest = list(own)
        assert len(rest) == 5
        for a, b in zip(rest, whole[3:], strict=True):
            assert torch.equal(a.pixels, b.pixels) and torch.equal(a.fake.camera, b.fake.camera)
            assert a.real.words == b.real.words and a.fake.words == b.fake.words
    assert not read[0] & read[1] and read[0] | read[1] == {0, 1}


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # of webdataset
def test_webdataset_streams_the_same_pictures(out):
    wds = pytest.importorskip("webdataset")
    urls = sorted(str(path) for path in (out / "shards").glob("*.tar"))
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    pictures = ShardPictures(out, "all")
    assert len(samples) == COUNT
    for i, sample in enumerate(samples):
        told = json.loads(sample["json"])
        assert sample["png"] == pictures.content(i)
        assert told["captions"] == pictures.captions(i) and told["camera"] == pictures.entries[i].camera


# Damage.


@pytest.fixture
def copy(out, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(out, tmp_path / "copy"))


def rewrite(folder: Path, number: int, **changes) -> None:
    lines = (folder / "index.jsonl").read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | changes)
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")


def test_damage_is_found_when_opening(copy):
    for changes, message in (
        ({"camera": [1.0] * 24}, "000.jpg have not 25 numbers"),
        ({"camera": [0.0] * 25}, "the pose must be a rotation"),
        ({"captions": "x"}, "line 1: captions is 'x', of a wrong type|of a wrong type"),
        ({"extra": 1}, "line 1: must have exactly"),
    ):
        before = (copy / "index.jsonl").read_text()
        rewrite(copy, 0, **changes)
        with pytest.raises(DataError, match=message):
            ShardPictures(copy)
        (copy / "index.jsonl").write_text(before)
    (copy / "shards/00000.tar").unlink()
    with pytest.raises(DataError, match="shards 00000.tar are missing"):
        ShardPictures(copy)


def test_a_shard_that_was_cut_short_is_named(copy):
    path = copy / "shards/00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="00001.tar ends before 005.jpg|cannot be decoded"):
        ShardPictures(copy).image(5)


def test_other_formats_and_empty_splits_are_refused(copy):
    with pytest.raises(DataError, match="no split 'dev'"):
        ShardPictures(copy, "dev")
    lines = [json.loads(line) | {"split": "test"} for line in (copy / "index.jsonl").read_text().splitlines()]
    (copy / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="no pictures in the split train"):
        ShardPictures(copy)
    (copy / "preparation.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="format 2; this version reads format 1"):
        ShardPictures(copy)


def test_entries_come_back_as_they_were(out):
    rows = read_index(out)
    assert len(rows) == COUNT and all(isinstance(row, Entry) for row in rows)
    assert {field.name for field in dataclasses.fields(Entry)} == set(dataclasses.asdict(rows[0]))

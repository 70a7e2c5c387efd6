"""Tests of the training data: pictures, cameras and captions from folders and from the miniature world."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_pictures import ToyPictures

from dreamportrait.core.config import Data
from dreamportrait.core.errors import DataError
from dreamportrait.data.dataset import (
    Batch,
    Draw,
    FolderPictures,
    TrainingData,
    Words,
    WorldPictures,
    collate,
    make_pictures,
)
from dreamportrait.data.writing import Sample, write_dataset
from dreamportrait.miniworld import world


def write(out: Path, count: int = 6) -> Path:
    toys = ToyPictures(count)
    write_dataset(
        out,
        (
            Sample(toys.image(i).numpy(), toys.cameras[i].numpy(), toys.captions(i), toys.evaluation_caption(i))
            for i in range(count)
        ),
    )
    return out


@pytest.fixture(params=["folder", "set.zip"])
def folder(request, tmp_path):
    return write(tmp_path / request.param)


# Folders.


def test_a_folder_gives_what_was_written(folder):
    found, toys = make_pictures(Data(kind="folder", path=str(folder))), ToyPictures(6)
    assert isinstance(found, FolderPictures) and len(found) == 6 and found.resolution == 8
    assert torch.equal(found.cameras, toys.cameras)
    for i in range(6):
        assert torch.equal(found.image(i), toys.image(i))
        assert found.captions(i) == toys.captions(i) and found.evaluation_caption(i) == toys.evaluation_caption(i)


def test_the_first_few_of_a_folder(folder):
    found = make_pictures(Data(kind="folder", path=str(folder), count=4))
    assert len(found) == len(found.cameras) == 4
    with pytest.raises(DataError, match="holds 6 images, 7 are asked for; lower data.count"):
        make_pictures(Data(kind="folder", path=str(folder), count=7))


def test_captions_of_another_file(folder, tmp_path):
    names = [f"00000/img{i:08d}.png" for i in range(6)]
    lines = [json.dumps({"file": name, "captions": [f"other {name}"], "evaluation": "e"}) for name in names]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines) + "\n")
    found = make_pictures(Data(kind="folder", path=str(folder), captions=str(other)))
    assert found.captions(2) == [f"other {names[2]}"] and found.evaluation_caption(2) == "e"
    other.write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"other.jsonl: no line for 00000/img00000005.png"):
        make_pictures(Data(kind="folder", path=str(folder), captions=str(other)))
    with pytest.raises(DataError, match=r"captions .*gone.jsonl cannot be read"):
        make_pictures(Data(kind="folder", path=str(folder), captions=str(tmp_path / "gone.jsonl")))


# The miniature world.


def test_the_miniature_world_is_the_one_of_world_load(tmp_path):
    found = make_pictures(Data(kind="miniworld", count=3, path=str(tmp_path)))
    expected = world.load("train", 3, tmp_path)
    assert isinstance(found, WorldPictures) and len(found) == 3 and found.resolution == expected.images.shape[-1]
    for i in range(3):
        assert np.array_equal(found.image(i).numpy(), expected.images[i])
        assert np.array_equal(found.cameras[i].numpy(), expected.cameras[i])
        assert found.captions(i) == expected.captions(i)
        assert found.evaluation_caption(i) == expected.evaluation_caption(i)
    assert list(tmp_path.iterdir())  # the cache is in the given folder


def test_other_processes_open_the_miniature_world_themselves(tmp_path):
    found = WorldPictures("train", 2, str(tmp_path))
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).image(1), found.image(1))


# Samples and batches.


def test_a_draw_is_looked_up():
    data = TrainingData(ToyPictures(6))
    example = data[Draw(image=5, caption=0.99, fake=4, fake_caption=0.4)]
    assert example.image.unique().tolist() == [5] and example.image.dtype == torch.uint8
    assert torch.equal(example.camera, data.pictures.cameras[5])
    assert torch.equal(example.fake_camera, data.pictures.cameras[4])
    assert example.words == Words(5, 2, "face 5, caption 2") and example.fake_words == Words(4, 0, "face 4, caption 0")


def test_every_caption_can_be_drawn():
    data = TrainingData(ToyPictures(6))
    found = [data[Draw(2, float(draw), 0, 0.0)].words.caption for draw in np.linspace(0, 1, 300, endpoint=False)]
    assert [found.count(k) for k in range(3)] == [100, 100, 100]


def test_a_batch_is_in_the_generators_range_and_moves():
    data = TrainingData(ToyPictures(256))
    batch = collate([data[Draw(i, 0.0, 255 - i, 0.0)] for i in (0, 255, 51)])
    assert batch.pixels.dtype == torch.uint8  # a quarter of what would travel between processes and to the device
    assert batch.image.shape == (3, 3, 8, 8) and batch.image.dtype == torch.float32 and batch.image.is_contiguous()
    assert batch.image[:, 0, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])
    assert batch.fake.prompts == ["face 255, caption 0", "face 0, caption 0", "face 204, caption 0"]
    moved = batch.to("meta")
    assert isinstance(moved, Batch) and moved.pixels.is_meta and moved.image.is_meta
    assert moved.real.camera.is_meta and moved.fake.camera.is_meta
    assert moved.fake.prompts == batch.fake.prompts and len(moved) == 3

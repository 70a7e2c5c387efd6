"""Tests from a folder of stand-in photographs to training steps, by the commands of README.md and docs/data.md."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scripts import load_script
from stand_ins import SIZE, landmarks_of, stand_in, write_photos
from tiny_training import SIZE as TINY
from toy_run import arguments, write_sources

import train
from dreamportrait.cli import main
from dreamportrait.data.index import Entry, read_index
from dreamportrait.data.preparation.landmarks import Found, write_landmarks
from dreamportrait.training.states import load_state

pytestmark = pytest.mark.lengthy
SMALL = ("--least-side", "32", "--resolution", str(TINY))


def run(command: object, *options: object) -> str:
    result = result_of(command, *options)
    if result.exception is not None:
        raise AssertionError(result.output) from result.exception
    return result.output


def result_of(command: object, *options: object) -> Result:
    return CliRunner().invoke(command, [str(option) for option in options])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "photos", 14)
    options = (*SMALL, "--landmarks", landmarks_of(folder / "photos"), "--per-shard", 5)
    output = run(load_script("datasets/from_folder.py").main, folder / "photos", folder / "prepared", *options)
    assert "14 pictures, 0 dropped" in output
    return folder / "prepared"


def test_photographs_become_training_steps(prepared, tmp_path):
    assert "14 pictures, 0 problems" in run(main, "data", "validate", prepared)
    assert "pictures" in run(main, "data", "stats", prepared)
    sources = write_sources(tmp_path / "sources")
    encode = load_script("datasets/encode_captions.py").main
    assert "28 different captions" in run(encode, prepared, tmp_path / "text", "--clip", sources / "CLIP", "--offline")
    settings = (
        f"data.path={prepared}",
        f"text.store={tmp_path / 'text'}",
        "samples.prompts=[]",
        "data.own_shards=1",
    )
    run(train.main, *arguments(sources, tmp_path / "runs", *settings))
    state = load_state(tmp_path / "runs/test/checkpoints/images-000000024.ckpt")
    assert state is not None


def test_training_refuses_what_does_not_fit(prepared, tmp_path):
    sources = write_sources(tmp_path / "sources")
    result = result_of(train.main, *arguments(sources, tmp_path / "runs", f"data.path={prepared}:test:train"))
    assert result.exit_code == 1 and "is neither a folder nor a zip file" in result.output
    own = result_of(train.main, *arguments(sources, tmp_path / "runs", "data.own_shards=1"))
    assert own.exit_code == 1 and "has no shards; prepare it" in own.output
    own = result_of(train.main, *arguments(sources, tmp_path / "runs", f"data.path={prepared}", "data.own_shards=2"))
    assert own.exit_code == 1 and "shards for 2 processes, and this run has 1; start as many" in own.output
    captions = (f"data.path={prepared}", "data.captions=x.jsonl")
    result = result_of(train.main, *arguments(sources, tmp_path / "runs", *captions))
    assert result.exit_code == 1 and "has captions of its own" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_stopped_run_on_prepared_data_continues_bit_for_bit(prepared, tmp_path):
    sources = write_sources(tmp_path / "sources")
    settings = (f"data.path={prepared}", "samples.prompts=[]")
    run(train.main, *arguments(sources, tmp_path / "whole", *settings))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for path in (tmp_path / "parts/test/checkpoints").glob("*.ckpt"):
        if "000000008" not in path.name:  # as if the run had been killed after 8 of the training pictures of an epoch
            path.unlink()
    run(train.main, *arguments(sources, tmp_path / "parts", *settings))
    states = [load_state(tmp_path / f"{name}/test/checkpoints/images-000000024.ckpt") for name in ("whole", "parts")]
    names = [key for key in states[0] if "state_dict" in key]
    assert names
    for name in names:
        for key, value in states[0][name].items():
            assert torch.equal(value, states[1][name][key]), key


# Published layouts, by their scripts.


def published(folder: Path, pictures: str, texts: str, count: int, captions: int, suffix: str) -> Path:
    made = [stand_in(f"{pictures}/{i:05d}{suffix}", 5 * i - 15, 0, i) for i in range(count)]
    for i, each in enumerate(made):
        for part in (pictures, texts):
            (folder / part).mkdir(parents=True, exist_ok=True)
        each.picture.save(folder / each.file)
        text = "".join(f"caption {k} of {i}\n" for k in range(captions))
        (folder / texts / f"{i:05d}.txt").write_text(text)
    path = folder.with_name("landmarks.jsonl")
    write_landmarks(path, [Found(each.file, SIZE, SIZE, [each.face]) for each in made])
    return path


def entries(out: Path) -> list[Entry]:
    rows = read_index(out)
    assert all(isinstance(row, Entry) for row in rows)
    return rows


def test_celeba_text_hq(tmp_path):
    source = tmp_path / "CelebAText-HQ"
    landmarks = published(source, "CelebAimg", "captions", 6, 10, ".jpg")
    (source / "data_flist").mkdir()
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        (source / f"data_flist/{split}.flist").write_text("".join(f"/a/b/{i:05d}.jpg\n" for i in numbers))
    run(load_script("datasets/celeba_text_hq.py").main, source, tmp_path / "out", *SMALL, "--landmarks", landmarks)
    rows = entries(tmp_path / "out")
    assert [row.split for row in rows] == ["train"] * 4 + ["test"] * 2
    assert all(len(row.captions) == 10 for row in rows)


def test_ffhq_text(tmp_path):
    source = tmp_path / "FFHQ-Text"
    landmarks = published(source, "Image", "Text", 5, 9, ".png")
    for split, numbers in (("Train", range(3)), ("Test", range(3, 5))):
        names = [f"{i:05d}" for i in numbers]
        texts = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() for name in names)
        (source / split).mkdir()
        (source / split / "filenames.pkl").write_bytes(b"\x80\x02](" + texts + b"e.")
    run(load_script("datasets/ffhq_text.py").main, source, tmp_path / "out", *SMALL, "--landmarks", landmarks)
    rows = entries(tmp_path / "out")
    assert [row.split for row in rows] == ["train"] * 3 + ["test"] * 2
    assert all(len(row.captions) == 9 for row in rows)


def test_commands_say_what_is_wrong_in_one_message(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for options, message in (
        ((tmp_path / "none", tmp_path / "out"), "is not there; name a folder of photographs or a zip file"),
        ((tmp_path, tmp_path / "out", "--aligned"), "--aligned needs the cameras"),
        ((tmp_path, tmp_path / "out", "--landmarks", tmp_path / "l.jsonl"), "l.jsonl is not there"),
        ((tmp_path, tmp_path / "out", "--layout", "ffhq-text"), "has no folder Image or Images or images"),
        ((tmp_path, tmp_path / "out", "--layout", "eg3d"), "has no dataset.json"),
    ):
        result = result_of(main, "data", "prepare", *options)
        assert result.exit_code == 1 and message in result.output and "Traceback" not in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]
    result = result_of(main, "data", "stats", tmp_path)
    assert result.exit_code == 1 and "preparation.json cannot be read" in result.output


def test_ctrl_c_says_that_the_same_command_continues(tmp_path, monkeypatch):
    from dreamportrait.data.preparation import run as running

    write_photos(tmp_path / "photos", 3)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "plan", interrupt)
    options = (tmp_path / "photos", tmp_path / "out", *SMALL, "--landmarks", landmarks_of(tmp_path / "photos"))
    result = result_of(main, "data", "prepare", *options)
    assert result.exit_code == 1 and "the same command continues where it was" in result.output
    monkeypatch.undo()
    assert "3 pictures" in run(main, "data", "prepare", *options)
    assert json.loads((tmp_path / "out/preparation.json").read_text())["pictures"] == 3

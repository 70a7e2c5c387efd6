"""Tests of what train.py refuses, from its command line, with one message and before anything is written."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import largest_file
from toy_run import write_faces
from train_script import QUIET, checkpoint, run, trained

from dreamportrait.systems.dreamportrait.folder import load_portrait_config as load_portrait_config
from dreamportrait.training.run_folder import claim

pytestmark = pytest.mark.lengthy


def test_another_configuration_is_no_continuation(sources, tmp_path):
    folder = trained(sources, tmp_path, QUIET, "stages.1.images=4")
    result = run(sources, tmp_path, "optim.lr_generator=1e-4", "loss.gan_weight=2", "trainer.keep=5")
    assert result.exit_code == 1
    assert "2 problems" in result.output and "optim.lr_generator: was 0.0025 when" in result.output
    assert "loss.gan_weight: was 1.0" in result.output and "choose another run.name" in result.output
    result = run(sources, tmp_path, options=("--resume", "none"))
    assert result.exit_code == 1 and "holds a run, which is never overwritten" in result.output
    assert len(list((folder / "starts").iterdir())) == 1


def test_a_folder_of_something_else_is_left_alone(sources, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "thesis.tex").write_text("mine")
    result = run(sources, tmp_path)
    assert result.exit_code == 1 and "is no run's folder and is left alone" in result.output
    assert [path.name for path in (tmp_path / "test").iterdir()] == ["thesis.tex"]


def test_a_checkpoint_of_another_architecture_is_named(sources, tmp_path, finished):
    changes = ("run.name=other", "model.conditioning.adapters=[4]", "model.conditioning.token_dim=16")
    result = run(sources, tmp_path, *changes, options=("--resume", str(finished)))
    assert result.exit_code == 1 and "2 problems" in result.output
    assert "model.conditioning.adapters: was None" in result.output and "another architecture" in result.output
    assert not (tmp_path / "other").exists()


def test_a_run_from_a_checkpoint_that_saved_nothing_begins_again(sources, tmp_path, finished):
    changes = ("run.name=other", QUIET)
    began = str(finished / "checkpoints/images-000000008.ckpt")
    assert run(sources, tmp_path, *changes, options=("--resume", began)).exit_code == 0
    for saved in (tmp_path / "other/checkpoints").iterdir():  # as if the process had been killed before the first
        saved.unlink()
    assert run(sources, tmp_path, *changes, options=("--resume", began)).exit_code == 0
    later = str(finished / "checkpoints/images-000000016.ckpt")
    another = run(sources, tmp_path, *changes, options=("--resume", later))
    assert another.exit_code == 1 and "is not empty, and --resume names another run's" in another.output


def test_all_that_is_missing_is_said_at_once(tmp_path):
    changes = (
        "guidance.kind=sds",
        "guidance.source=./no/diffusion",
        "data.batch=6",
        "loss.x=1",
    )
    result = run(tmp_path / "gone", tmp_path, *changes, options=("--resume", "nowhere.ckpt"))
    assert result.exit_code == 1
    for expected in (
        "loss.x: unknown",
        "stages.0.images and data.batch: 8 images are no whole number of batches of 6",
        "model.pretrained: ",
        "text.clip: CLIP ",
        "guidance.source: no diffusion model",
        "data.path: ",
        "--resume nowhere.ckpt: no checkpoint there",
    ):
        assert expected in result.output, result.output
    assert not (tmp_path / "test").exists()


def test_pictures_of_another_size_are_refused(sources, tmp_path):
    write_faces(tmp_path / "small", size=8)
    result = run(sources, tmp_path / "runs", f"data.path={tmp_path / 'small'}")
    assert result.exit_code == 1 and "pictures are 8 x 8" in result.output and "16 x 16" in result.output
    assert not (tmp_path / "runs").exists()


def test_adapters_that_the_backbone_has_no_place_for(sources, tmp_path):
    result = run(sources, tmp_path, "model.conditioning.adapters=[4,128]")
    assert result.exit_code == 1 and "[128] not among the backbone's [4, 8]" in result.output


def save_checkpoint(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("kind", ["text", "zip", "pickle", "foreign", "frozen", "batch", "resized"])
def test_a_checkpoint_that_cannot_be_used_is_refused_before_anything_is_written(sources, tmp_path, finished, kind):
    """The run's configuration is not beside these files, so only the files themselves can be checked."""
    path, changes = tmp_path / "other.ckpt", ["run.name=other", QUIET]
    good = finished / "checkpoints/images-000000008.ckpt"
    if kind == "text":
        path.write_text("no checkpoint")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")
    elif kind == "pickle":
        save_checkpoint(path, {"state_dict": {}, "object": tmp_path})
    elif kind == "foreign":
        save_checkpoint(path, {"state_dict": {}, "step": 1})
    elif kind == "resized":
        state = checkpoint(finished, 8)
        state["state_dict"]["critic.discriminator.b4.out.bias"] = torch.zeros(3)
        save_checkpoint(path, state)
    else:
        shutil.copy(good, path)
        changes += {
            "frozen": ["model.freeze_generator=true"],
            "batch": ["data.batch=6", "stages.1.images=12", "stages.1.accumulate=1"],
        }[kind]
        changes += ["stages.0.images=12"] if kind == "batch" else []
    result = run(sources, tmp_path / "runs", *changes, options=("--resume", str(path)))
    expected = {
        "frozen": "other parts are frozen",
        "batch": "made after 8 images, which is not a multiple of data.batch=6",
        "resized": "1 entries differ, for example critic.discriminator.b4.out.bias is [3] there",
        "text": "was damaged",
    }
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.output
    assert expected.get(kind, "is no training's state") in result.output and "other.ckpt" in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_during_the_training_is_one_message(sources, tmp_path, workers):
    write_faces(tmp_path / "faces")
    for path in sorted(tmp_path.glob("faces/00000/*.png"))[1:]:  # the first is read before
        path.write_bytes(path.read_bytes()[:70])
    changes = (QUIET, f"data.path={tmp_path / 'faces'}", f"data.workers={workers}")
    result = run(sources, tmp_path / "runs", *changes)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.output
    [line] = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "cannot be read" in line and "Restore the file" in line and "Traceback" not in result.output


def test_a_disk_that_gets_full_is_one_message(sources, tmp_path, monkeypatch):
    monkeypatch.setattr("dreamportrait.core.machine.git_state", dict)  # the difference to a commit may be long
    with largest_file(50_000):
        result = run(sources, tmp_path, QUIET)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.output
    assert "images-000000008.ckpt" in result.output and "so this is not written" in result.output
    assert not list((tmp_path / "test/checkpoints").iterdir())
    assert trained(sources, tmp_path, QUIET) == tmp_path / "test"  # with room, the same command goes on


def test_a_folder_in_use_is_left_alone(sources, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "test")
    lock = claim(tmp_path / "test")
    try:
        result = run(sources, tmp_path, "stages.1.images=24")
    finally:
        lock.release()
    assert result.exit_code == 1 and "is in use: another training writes to it" in result.output
    assert len(list((tmp_path / "test/starts").iterdir())) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(sources, tmp_path):
    result = run(sources, tmp_path, "trainer.accelerator=gpu", "trainer.devices=auto")
    assert result.exit_code == 1 and "trainer.accelerator: PyTorch sees no GPU here" in result.output


@pytest.mark.parametrize(
    "change",
    [
        "run.seed=100000000000000000000000",
        "model.conditioning.token_dim=100000000",
        "model.conditioning.mapper_blocks=65536",
        f"model.conditioning.adapters={list(range(10_000))}",
        "data.batch=1000000000000000000000",
        "trainer.devices=65536",
    ],
)
def test_numbers_are_bounded(sources, tmp_path, change):
    result = run(sources, tmp_path, change)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.output
    assert change.split("=")[0] in result.output and len(result.output) < 1500


def test_parts_keep_the_groups_of_the_discriminators_statistics(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run(sources, tmp_path)
    assert result.exit_code == 1
    assert "data.batch and stages.1.accumulate: 2 processes x 2 parts hold 1 of a batch of 4" in result.output
    assert "whole groups of 2; choose a batch that is a multiple of 8, or fewer parts" in result.output

"""Tests of train.py from its command line, on toy networks: its files, refused input, and stopped runs."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from full_disk import largest_file
from torch import Tensor
from toy_run import LICENCE, ROOT, arguments, write_faces, write_sources

import train
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.folder import load_portrait_config as load_portrait_config
from dreamportrait.training.run_folder import claim
from dreamportrait.training.states import load_state

pytestmark = pytest.mark.lengthy

QUIET = "samples.prompts=[]"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


def run(sources: Path, runs: Path, *changes: str, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(train.main, [*arguments(sources, runs, *changes), *options])


def trained(sources: Path, runs: Path, *changes: str, options: tuple[str, ...] = ()) -> Path:
    """Run train.py, check that it succeeds, and return the folder of the run."""
    result = run(sources, runs, *changes, options=options)
    if result.exception is not None:
        raise AssertionError(result.output) from result.exception
    return runs / "test"


def checkpoint(folder: Path, images: int = 24) -> dict[str, Any]:
    state = load_state(folder / "checkpoints" / f"images-{images:09d}.ckpt")
    assert state is not None
    return state


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Assert that two nested values are equal bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    else:
        assert a == b, where


def assert_same_run(a: Path, b: Path, images: int = 24) -> None:
    """Assert that two runs are equal in all that training changes: weights, averages, optimisers, images seen."""
    first, second = checkpoint(a, images), checkpoint(b, images)
    for part in ("state_dict", "optimizer_states", "images"):
        assert_same(first[part], second[part], part)
    assert first["optimizer_states"] and first["images"] == images


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


# Files of a run.


@pytest.fixture(scope="module")
def finished(sources, tmp_path_factory) -> Path:
    return trained(sources, tmp_path_factory.mktemp("finished"))


def test_a_run_leaves_its_files(finished):
    found = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    expected = {"config.yaml", "log.csv", "starts/000/config.yaml", "starts/000/environment.json"}
    expected |= {f"checkpoints/images-{n:09d}.ckpt" for n in (8, 16, 24)}
    expected |= {f"samples/images-{n:09d}.png" for n in (8, 16, 24)}
    assert expected <= found
    assert not [name for name in found if "unfinished" in name or name.endswith(".previous")]


def test_the_log_has_a_line_for_each_interval(finished):
    rows = log(finished)
    assert [int(row["images"]) for row in rows] == [4, 8, 12, 16, 20, 24]
    assert [row["stage"] for row in rows] == ["adapt"] * 2 + ["align"] * 4
    assert all(float(row["generator"]) > 0 and float(row["images_per_second"]) > 0 for row in rows)
    assert {"discriminator", "r1", "density", "diversity"} <= set(rows[0])


def test_the_run_is_recorded(finished, sources):
    config = load_config(finished / "config.yaml")
    assert config.data.path == str(sources / "FACES") and config.stages[1].accumulate == 2
    about = json.loads((finished / "starts/000/environment.json").read_text())
    assert torch.__version__.startswith(about["packages"]["torch"]) and about["checkpoint"] is None and about["command"]
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert len(about["git"]["commit"]) == len(head.stdout.strip())
        assert {"commit", "branch", "changed"} <= set(about["git"])


def test_nothing_secret_is_recorded(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "geheim")
    folder = trained(sources, tmp_path, QUIET, "stages.1.images=4")
    assert not [path for path in folder.rglob("*.json") if "geheim" in path.read_text()]


def test_the_result_can_be_loaded(finished):
    portrait = load_portrait(finished / "portrait")
    assert portrait.discriminator is not None and list(portrait.generator.adapters) == ["4", "8"]
    saved = checkpoint(finished)["state_dict"]
    averaged = {name.removeprefix("averaged."): x for name, x in saved.items() if name.startswith("averaged.")}
    assert_same(dict(portrait.generator.state_dict()), averaged)
    assert load_portrait_config(finished / "portrait").licence == LICENCE


# Continued runs.


@pytest.mark.parametrize("images", [4, 8])  # stops in the middle of an epoch and of the log's means
def test_a_continued_run_is_bit_for_bit_the_run_that_was_not(sources, tmp_path, finished, images):
    changes = ("trainer.log_every_images=12",)
    part = trained(sources, tmp_path, f"stages.1.images={images}", *changes)
    assert not (part / "checkpoints/images-000000024.ckpt").exists()
    assert trained(sources, tmp_path, *changes) == part
    assert_same_run(part, finished)
    about = json.loads((part / "starts/001/environment.json").read_text())
    assert about["checkpoint"].endswith(f"images-{8 + images:09d}.ckpt")


def test_other_seeds_give_other_runs(sources, tmp_path, finished):
    other = checkpoint(trained(sources, tmp_path, QUIET, "run.seed=1"))
    with pytest.raises(AssertionError):
        assert_same(other["state_dict"], checkpoint(finished)["state_dict"])


def test_pictures_of_samples_do_not_change_the_training(sources, tmp_path, finished):
    assert_same_run(trained(sources, tmp_path, QUIET, "trainer.log_every_images=24"), finished)


def test_a_finished_run_stays_as_it_is(sources, tmp_path):
    folder = trained(sources, tmp_path, QUIET, "stages.1.images=4")
    before = (folder / "checkpoints/images-000000012.ckpt").read_bytes()
    result = run(sources, tmp_path, QUIET, "stages.1.images=4")
    assert result.exit_code == 0 and "images-000000012.ckpt" in result.output and "done" in result.output
    assert (folder / "checkpoints/images-000000012.ckpt").read_bytes() == before
    assert len(log(folder)) == 3


def test_a_new_run_from_a_checkpoint_of_another(sources, tmp_path, finished):
    changes = (QUIET, "run.name=other", "optim.lr_generator=1e-4")
    result = run(sources, tmp_path, *changes, options=("--resume", str(finished / "checkpoints/images-000000008.ckpt")))
    assert result.exit_code == 0, result.output
    rows = log(tmp_path / "other")
    assert [int(row["images"]) for row in rows] == [12, 16, 20, 24]
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "other", finished)


# Refused input.


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


# Dry runs.


def test_a_dry_run_shows_everything_and_writes_nothing(sources, tmp_path):
    before = sorted(sources.rglob("*"))
    result = run(sources, tmp_path, options=("--dry-run",))
    assert result.exit_code == 0, result.output
    lines = {line.split("  ")[0]: line for line in result.output.splitlines()}
    assert "11,108" in lines["generator"] and " yes " in lines["generator"]
    assert "adapters at 4, 8" in lines and "text tower" in lines and " no " in lines["text tower"]
    assert lines["align"].split() == ["align", "16", "4", "none", "2", "x", "2", "x", "1", "processes"]
    assert "from      the beginning" in result.output
    assert not list(tmp_path.iterdir()) and sorted(sources.rglob("*")) == before


def test_a_dry_run_of_a_run_that_was_stopped(sources, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "test")
    newest = tmp_path / "test/checkpoints/images-000000024.ckpt"
    newest.write_bytes(b"damaged")
    before = sorted(tmp_path.rglob("*"))
    result = run(sources, tmp_path, options=("--dry-run",))
    assert result.exit_code == 0 and f"from      {newest}" in result.output
    assert sorted(tmp_path.rglob("*")) == before and newest.read_bytes() == b"damaged"


def test_a_dry_run_with_a_clip_that_nobody_knows(sources, tmp_path):
    result = run(sources, tmp_path, "text.clip=ViT-X:none", options=("--dry-run",))
    assert result.exit_code == 1 and "ViT-X:none: not on this machine" in result.output
    assert "text.clip: CLIP 'ViT-X:none' is no name, no folder and no MODEL:PRETRAINED of open_clip" in result.output


def test_a_dry_run_shows_what_rests(sources, tmp_path):
    result = run(sources, tmp_path, "model.freeze_generator=true", options=("--dry-run",))
    lines = {line.split("  ")[0]: line for line in result.output.splitlines()}
    assert " no " in lines["generator"] and " yes " in lines["discriminator"]


def test_a_dry_run_at_full_size_needs_no_weights(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [
        "--config",
        str(ROOT / "configs/dreamportrait/celebatext_hq_paper.yaml"),
        "--dry-run",
        "--set",
        "text.store=null",
    ]
    result = CliRunner().invoke(train.main, command)
    assert "865,910,724" in result.output and "83,653,863" in result.output  # Stable Diffusion 2, as published
    assert "30,662,136" in result.output and "adapters at 4, 8, 16, 32, 64, 128" in result.output
    assert "15,625" in result.output and "31,250" in result.output
    assert result.exit_code == 1 and "model.pretrained: weights/ffhq512" in result.output  # reported after the table


def test_help_is_there():
    result = CliRunner().invoke(train.main, ["--help"])
    assert result.exit_code == 0
    for option in ("--config", "--set", "--dry-run", "--resume", "--offline"):
        assert option in result.output


# Killed runs. Each start is a separate process.


def start(sources: Path, runs: Path, *changes: str, before: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run train.py in a new process, after the code `before`, which may make it fail."""
    code = textwrap.dedent(before) + f"\nimport sys; sys.argv = {['train.py', *arguments(sources, runs, *changes)]!r}"
    code += "\nimport train; train.main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


# Code that kills the process at the second save: after half of the file is written, or before the file is renamed.
KILLS = {
    "half written": """
        import os, signal, torch
        whole = torch.save
        def save(state, file):
            save.count += 1
            whole(state, file)
            if save.count == 2:
                file.flush()
                os.ftruncate(file.fileno(), file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        save.count = 0
        torch.save = save
        """,
    "not yet renamed": """
        import os, signal
        whole = os.replace
        def replace(a, b):
            if str(b).endswith("images-000000016.ckpt"):
                os.kill(os.getpid(), signal.SIGKILL)
            whole(a, b)
        os.replace = replace
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS)
def test_killed_during_a_save_it_continues_from_the_one_before(sources, tmp_path, finished, kill):
    done = start(sources, tmp_path, before=KILLS[kill])
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = sorted(path.name for path in (tmp_path / "test/checkpoints").glob("*.ckpt"))
    assert names == ["images-000000008.ckpt"] and checkpoint(tmp_path / "test", 8)["images"] == 8
    done = start(sources, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from " in done.stdout and "images-000000008.ckpt" in done.stdout
    assert_same_run(tmp_path / "test", finished)
    assert [int(row["images"]) for row in log(tmp_path / "test")] == [4, 8, 12, 16, 20, 24]
    assert not list((tmp_path / "test/checkpoints").glob("*.unfinished"))


@pytest.mark.slow
def test_killed_at_random_moments_it_still_ends_the_same(sources, tmp_path, finished):
    chance = random.Random(0)
    for _ in range(3):
        code = f"""
            import os, pathlib, signal, threading, time
            folder = pathlib.Path({str(tmp_path)!r}) / "test/starts"
            begun = len(list(folder.glob("*")))
            def watch():
                while len(list(folder.glob("*"))) == begun:
                    time.sleep(0.01)
                time.sleep({chance.uniform(0, 0.8)})
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=watch, daemon=True).start()
            """
        start(sources, tmp_path, "trainer.save_every_images=4", before=code)
    assert len(list((tmp_path / "test/starts").iterdir())) == 3
    done = start(sources, tmp_path, "trainer.save_every_images=4")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "test", finished)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside(sources, tmp_path, finished):
    folder = trained(sources, tmp_path, "stages.1.images=8")
    newest = folder / "checkpoints/images-000000016.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = start(sources, tmp_path)
    assert done.returncode == 0 and "damaged" in done.stderr, done.stderr
    assert newest.with_name(newest.name + ".damaged").exists()
    assert_same_run(folder, finished)


def test_the_shipped_toy_configuration_names_what_is_replaced():
    values = yaml.safe_load((ROOT / "configs/dreamportrait/test.yaml").read_text())
    assert (values["data"]["path"], values["model"]["pretrained"], values["text"]["clip"]) == (
        "FACES",
        "PRETRAINED",
        "CLIP",
    )

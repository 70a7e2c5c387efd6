"""Tests of train.py from its command line, on toy networks: its files, dry runs, and stopped runs."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from same_states import assert_same
from toy_run import LICENCE, ROOT, arguments
from train_script import QUIET, checkpoint, run, trained

import train
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.folder import load_portrait_config as load_portrait_config

pytestmark = pytest.mark.lengthy


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
    threads = str(torch.get_num_threads())  # as in this process: sums of other parts round differently
    environment = {**os.environ, "OMP_NUM_THREADS": threads, **variables}
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

"""Tests that two processes that share a batch train like one process with two accumulated parts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_folders import write_own
from toy_run import ROOT, arguments, write_sources

from dreamportrait.training.states import load_state

pytestmark = pytest.mark.slow
ONE = ("stages=[{name: only, images: IMAGES, accumulate: 2}]", "samples.prompts=[]", "loss.density_every=1")
TWO = ("stages=[{name: only, images: IMAGES}]", "samples.prompts=[]", "loss.density_every=1")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


def run(
    sources: Path, runs: Path, images: int, *changes: str, launcher: tuple[str, ...] = (), starts: int = 1
) -> dict[str, Any]:
    """Run train.py, started by `launcher` if given, and return its last checkpoint."""
    settings = [change.replace("IMAGES", str(images)) for change in changes]
    command = [sys.executable, *launcher, str(ROOT / "train.py"), *arguments(sources, runs, *settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=runs.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    state = load_state(runs / f"test/checkpoints/images-{images:09d}.ckpt")
    assert state is not None
    assert len(list((runs / "test/starts").iterdir())) == starts  # only one process records a start
    return state


def gradients(state: dict[str, Any]) -> list[torch.Tensor]:
    """Return the gradients of the last step: Adam's first moments, which equal them because beta is 0."""
    found = [value["exp_avg"] for optimizer in state["optimizer_states"] for value in optimizer["state"].values()]
    assert found and any(value.abs().max() > 0 for value in found)
    assert {group["betas"][0] for optimizer in state["optimizer_states"] for group in optimizer["param_groups"]} == {0}
    return found


def assert_close(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        # Two half sums replace one sum, which costs a few roundings of float32.
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5 * max(y.abs().max().item(), 1e-3))


def test_two_processes_have_the_gradients_of_one(sources, tmp_path):
    one = run(sources, tmp_path / "one", 4, *ONE)
    two = run(sources, tmp_path / "two", 4, *TWO, launcher=TORCHRUN)
    assert two["images"] == one["images"] == 4
    assert_close(gradients(two), gradients(one))


def test_two_processes_have_the_weights_of_one(sources, tmp_path):
    """Adam turns roundings of a gradient near zero into steps, so weights are compared by the lengths of changes."""
    one = run(sources, tmp_path / "one", 24, *ONE)
    two = run(sources, tmp_path / "two", 24, *TWO, launcher=TORCHRUN)
    before = run(sources, tmp_path / "before", 4, *ONE)["state_dict"]
    changed = [value - before[name] for name, value in one["state_dict"].items()]
    differs = [value - one["state_dict"][name] for name, value in two["state_dict"].items()]
    moved, apart = (torch.cat([x.flatten().double() for x in each]).norm() for each in (changed, differs))
    # Half sums in another order cost some roundings of 6e-8; five steps of Adam made 3e-6 of them.
    assert moved > 0.01 and apart < 1e-4 * moved


def test_a_fake_score_is_taught_by_two_processes_as_by_one(sources, tmp_path):
    """Its warm-up and its updates must see the same latents, steps and noise. Its gradients have momentum."""
    write_own(sources / "DIFFUSION")
    dmd = ["guidance.kind=dmd", f"guidance.source={sources / 'DIFFUSION'}", "fake.warmup_images=8", "fake.bank=8"]
    guided = [change.replace("IMAGES", "IMAGES, guidance: true") for change in (*ONE, *TWO)]
    one = run(sources, tmp_path / "one", 4, *guided[:3], *dmd)
    two = run(sources, tmp_path / "two", 4, *guided[3:], *dmd, launcher=TORCHRUN)
    found = [state["optimizer_states"][2] for state in (one, two)]
    assert all(each["param_groups"][0]["name"] == "fake_score" for each in found)
    first, second = ([value["exp_avg"] for value in each["state"].values()] for each in found)
    assert_close(second, first)


def test_processes_that_lightning_starts_are_the_same(sources, tmp_path):
    by_torchrun = run(sources, tmp_path / "torchrun", 8, *TWO, launcher=TORCHRUN)
    by_lightning = run(sources, tmp_path / "lightning", 8, *TWO, "trainer.devices=2")
    for name, value in by_torchrun["state_dict"].items():
        assert torch.equal(value, by_lightning["state_dict"][name]), name


def test_two_processes_continue_bit_for_bit(sources, tmp_path):
    whole = run(sources, tmp_path / "whole", 12, *TWO, launcher=TORCHRUN)
    run(sources, tmp_path / "parts", 8, *TWO, launcher=TORCHRUN)
    parts = run(sources, tmp_path / "parts", 12, *TWO, launcher=TORCHRUN, starts=2)
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


@pytest.mark.parametrize("told", ["parent", "child"])
def test_a_signal_to_one_process_stops_all(sources, tmp_path, told):
    """Both finish the same step, one checkpoint is written, and no process is left."""
    settings = (*TWO, "trainer.devices=2", "trainer.log_every_images=4", "trainer.save_every_images=40000")
    changes = [change.replace("IMAGES", "40000") for change in settings]
    command = [sys.executable, str(ROOT / "train.py"), *arguments(sources, tmp_path / "runs", *changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "runs/test/log.csv"
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
            time.sleep(0.1)
        [child] = children(process.pid)
        os.kill(process.pid if told == "parent" else child, signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    [path] = (tmp_path / "runs/test/checkpoints").iterdir()
    assert f"SIGTERM: stopped after {int(path.stem[-9:])} images; the same command continues from {path}" in errors
    assert not Path(f"/proc/{child}").exists()


def children(parent: int) -> list[int]:
    """Return the processes that were started by the main thread of a process."""
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

"""Tests of runs that a signal stops: one checkpoint, the exit code, and an exact continuation."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from same_states import assert_same
from tiny_training import config, loader, module

from dreamportrait.core.signals import Interrupted, Signals
from dreamportrait.systems.dreamportrait.callbacks import make_callbacks
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.training import stopping
from dreamportrait.training.checkpoints import newest_checkpoint
from dreamportrait.training.stopping import requeue
from dreamportrait.training.trainer import Continuation, TrainingRun, make_trainer

pytestmark = pytest.mark.lengthy


class Signal(Callback):
    """Sends this process a signal in the middle of the step that begins after `images` images."""

    def __init__(self, number: int, images: int) -> None:
        self.number, self.images = number, images

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if pl_module.images == self.images and optimizer.param_groups[0]["name"] == "generator":
            os.kill(os.getpid(), self.number)


def train(c: Any, *more: Callback, checkpoint: Path | None = None) -> DreamPortraitModule:
    made, data = module(c), loader(c)
    trainer = make_trainer(c, [*more, *make_callbacks(c, None), Continuation(data)])
    with Signals() as signals:
        TrainingRun(c, made, data, trainer, checkpoint, lambda: c.folder).train(signals)
    return made


def quiet(folder: Path, **trainer: Any) -> Any:
    return config(folder, trainer={"accelerator": "cpu", "devices": 1, "sample_every_images": 0, **trainer})


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_signal_finishes_the_step_and_writes_one_checkpoint(tmp_path: Path, number: int, code: int) -> None:
    c = quiet(tmp_path, save_every_images=16)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        train(c, Signal(number, 8))
    assert stopped.value.code == code and signal.getsignal(number) == before
    path = newest_checkpoint(c.folder / "checkpoints")
    assert path is not None and path.name == "images-000000012.ckpt"
    assert {each.name for each in path.parent.iterdir()} == {"images-000000008.ckpt", path.name}  # 8: a stage's end
    name = signal.Signals(number).name
    assert stopped.value.message == f"{name}: stopped after 12 images; the same command continues from {path}"


def test_a_stopped_run_continues_exactly(tmp_path: Path) -> None:
    whole = train(quiet(tmp_path / "whole"))
    c = quiet(tmp_path / "parts", save_every_images=16)
    with pytest.raises(Interrupted):
        train(c, Signal(signal.SIGTERM, 0))
    again = train(c, checkpoint=newest_checkpoint(c.folder / "checkpoints"))
    assert_same(again.state_dict(), whole.state_dict())


def test_a_signal_in_the_last_step_changes_nothing(tmp_path: Path) -> None:
    assert train(quiet(tmp_path), Signal(signal.SIGTERM, 12)).images == 16


def test_a_checkpoint_that_is_due_is_not_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    act = stopping.Checkpoints.act

    def counted(self: Any, trainer: Any, made: Any) -> None:
        saved.append(made.images)
        act(self, trainer, made)

    monkeypatch.setattr(stopping.Checkpoints, "act", counted)
    with pytest.raises(Interrupted):
        train(quiet(tmp_path, save_every_images=4), Signal(signal.SIGTERM, 8))
    assert saved == [4, 8, 12]


@pytest.mark.parametrize("fails", [False, True])
def test_slurm_is_asked_to_start_the_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fails: bool
) -> None:
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {int(fails)}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not requeue(signal.SIGUSR1)  # no job of SLURM
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert not requeue(signal.SIGTERM) and not (tmp_path / "asked").exists()
    assert requeue(signal.SIGUSR1) is not fails
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert ("submit the job again" in capfd.readouterr().err) == fails

"""Tests of what is checked before a trainer starts, and of processes that are lost."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from tiny_training import config

from dreamportrait.core.launch import is_child
from dreamportrait.core.processes import largest
from dreamportrait.training.devices import check_devices, count_devices
from dreamportrait.training.trainer import end_children, is_lost_process


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that this machine has two V100."""
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    return monkeypatch


def test_devices_that_are_there(gpus: pytest.MonkeyPatch) -> None:
    check_devices(config(trainer={"precision": "float16"}))
    check_devices(config(trainer={"accelerator": "cpu", "devices": 9, "precision": "bfloat16"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"devices": 3}}, "3 processes for 2 GPUs; set trainer.devices=2"),
        ({"trainer": {"precision": "bfloat16"}}, "Tesla V100 has no bfloat16; choose float16"),
        ({"guidance": {"precision": "bfloat16"}}, "Tesla V100 has no bfloat16; choose float16"),
    ],
)
def test_devices_that_are_not_there(
    gpus: pytest.MonkeyPatch, changes: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_devices(config(**changes))


def test_no_gpu_at_all(gpus: pytest.MonkeyPatch) -> None:
    gpus.setattr(torch.cuda, "device_count", lambda: 0)
    c = config(trainer={"accelerator": "gpu"})
    assert count_devices(c) == 1  # what is divided by it is checked as well
    with pytest.raises(ValueError, match="PyTorch sees no GPU here, and trainer.accelerator is gpu; choose auto"):
        check_devices(c)


def test_lost_processes_are_known_by_their_errors() -> None:
    assert is_lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"))
    assert is_lost_process(dist.DistBackendError("NCCL communicator was aborted"))
    assert not is_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert largest(3) == 3  # of one process


def test_children_that_do_not_end_are_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child])))
    end_children(trainer, patience=0.2)  # type: ignore[arg-type]
    assert child.wait(10) == -9
    end_children(SimpleNamespace(strategy=SimpleNamespace(launcher=None)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variables", "child"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1", "RANK": "1"}, False),  # of torchrun
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "1"}, False),
    ],
)
def test_processes_that_the_trainer_started(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], child: bool
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_child() == child

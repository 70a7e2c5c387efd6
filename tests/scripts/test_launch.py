"""Tests of the files in tools/launch: their syntax, their fields, and trainings that they start on two machines."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from clusters import (
    FAULTY,
    LAUNCH,
    TRAIN,
    TRAINING,
    assert_same_weights,
    checkout,
    environment,
    fault,
    final,
    start_on,
    two_machines,
    undisturbed_run,
    wait,
)
from forks import free_port
from places import ROOT
from pydantic import BaseModel, ConfigDict, Field
from slurm import no_slurm, two_nodes, waiting
from toy_run import arguments

from dreamportrait.training.stopping import requeue

SCRIPTS = {"torchrun.sh": "sh", "slurm.sh": "bash"}


# What can be read.


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_well_formed(name: str) -> None:
    assert os.access(LAUNCH / name, os.X_OK)
    assert (LAUNCH / name).read_text().startswith(f"#!/bin/{SCRIPTS[name]}\n")
    commands = [[SCRIPTS[name], "-n"]] + ([["shellcheck"]] if shutil.which("shellcheck") else [])
    for command in commands:
        done = subprocess.run([*command, LAUNCH / name], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Variable(Part):
    name: str
    value: str  # Kubernetes refuses numbers


class Container(Part):
    name: Literal["pytorch"]  # the operator gives its variables to the container of this name
    image: str
    command: list[str]
    args: list[str]
    env: list[Variable]
    resources: dict[Literal["limits"], dict[Literal["nvidia.com/gpu"], int]]
    volumeMounts: list[dict[Literal["name", "mountPath"], str]]


class Pod(Part):
    terminationGracePeriodSeconds: int = Field(ge=30)  # torchrun gives its processes 30 seconds
    containers: list[Container] = Field(min_length=1, max_length=1)
    volumes: list[dict[str, Any]]


class Replicas(Part):
    replicas: int
    restartPolicy: Literal["OnFailure"]
    template: dict[Literal["spec"], Pod]


class Spec(Part):
    nprocPerNode: str
    runPolicy: dict[str, Any]
    pytorchReplicaSpecs: dict[Literal["Master", "Worker"], Replicas]


class Job(Part):
    """The fields of a PyTorchJob that matter, with the types of the operator's schema (v1.9)."""

    apiVersion: Literal["kubeflow.org/v1"]
    kind: Literal["PyTorchJob"]
    metadata: dict[Literal["name"], str]
    spec: Spec


def kubernetes_job() -> Job:
    return Job.model_validate(yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text()))


def test_the_fields_of_the_kubernetes_job() -> None:
    job = kubernetes_job()
    groups = job.spec.pytorchReplicaSpecs
    assert groups["Master"].replicas == 1
    for group in groups.values():
        pod = group.template["spec"]
        [container] = pod.containers
        variables = {each.name: each.value for each in container.env}
        gpus = str(container.resources["limits"]["nvidia.com/gpu"])
        assert gpus == variables["GPUS"] == job.spec.nprocPerNode
        assert int(variables["NODES"]) == sum(each.replicas for each in groups.values())
        assert os.access(ROOT / container.command[0], os.X_OK)
        assert {each["name"] for each in container.volumeMounts} == {each["name"] for each in pod.volumes}


def test_the_directives_of_the_slurm_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (LAUNCH / "slurm.sh").read_text()
    given = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert given["ntasks-per-node"] == given["gpus-per-node"]  # one process for each GPU
    assert "requeue" in given and given["open-mode"] == "append"  # a job that is started again keeps its output
    name, seconds = given["signal"].split("@")  # to the processes; with "B:" it would go to the script
    assert int(seconds) >= 60
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert requeue(signal.Signals[f"SIG{name}"])  # the training asks for the queue when this signal comes


@pytest.mark.parametrize("lost", ["MASTER_ADDR", "NODES", "NODE_RANK"])
def test_torchrun_needs_its_variables(lost: str, tmp_path: Path) -> None:
    variables = {"MASTER_ADDR": "localhost", "NODES": "1", "NODE_RANK": "0", lost: ""}
    done = subprocess.run(
        [LAUNCH / "torchrun.sh"], env=environment(**variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and f"{lost} is not set: the " in done.stderr


# Trainings. Two machines have networks of their own, where this is allowed.


@pytest.fixture(scope="module")
def beside(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the last checkpoint of two processes beside each other on this machine."""
    return undisturbed_run(2, sources, tmp_path_factory.mktemp("beside"))


@pytest.mark.slow
def test_two_machines_by_torchrun(sources: Path, beside: dict[str, Any], tmp_path: Path) -> None:
    given, begun = arguments(sources, tmp_path / "runs", *TRAINING), time.monotonic()
    with two_machines() as machines:
        done = [wait(each, begun) for each in start_on(machines, given, checkout(tmp_path / "checkout"))]
    assert [each.code for each in done] == [0, 0], done[0].text + done[1].text
    assert_same_weights(final(tmp_path / "runs"), beside)


@pytest.mark.slow
def test_two_pods_of_kubernetes(sources: Path, beside: dict[str, Any], tmp_path: Path) -> None:
    """The pods' command with the variables that the operator sets, in each of two networks."""
    groups, begun = kubernetes_job().spec.pytorchReplicaSpecs, time.monotonic()
    folder, port = checkout(tmp_path / "checkout"), free_port()
    (folder / "tools").symlink_to(ROOT / "tools")
    with two_machines() as machines:
        pods = []
        for rank, (machine, group) in enumerate(zip(machines, groups.values(), strict=True)):
            [container] = group.template["spec"].containers
            variables = {each.name: each.value for each in container.env} | {"GPUS": "1"}
            variables |= {"MASTER_ADDR": machines[0].address, "MASTER_PORT": str(port), "RANK": str(rank)}
            variables |= {"WORLD_SIZE": "2", "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(rank)}
            assert [word for word in container.args if word.startswith("--")] == ["--config", "--set"]
            command = machine.inside(variables, [*container.command, *arguments(sources, tmp_path / "runs", *TRAINING)])
            pods.append(subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.STDOUT, text=True))
        assert [pod.wait(300) for pod in pods] == [0, 0], f"after {time.monotonic() - begun:.0f} s"
    assert_same_weights(final(tmp_path / "runs"), beside)


@pytest.mark.slow
@pytest.mark.skipif(no_slurm() is not None, reason=no_slurm() or "")
@pytest.mark.parametrize("kind", [None, "usr1", "kill"])
def test_two_nodes_of_slurm(sources: Path, beside: dict[str, Any], tmp_path: Path, kind: str | None) -> None:
    """SLURM's own daemons run the job, and start it again after a signal or when a process is lost."""
    folder = checkout(tmp_path / "checkout", FAULTY if kind else TRAIN)
    told = {"FAULT": fault(kind, tmp_path / "once")} if kind else {}
    sizes = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--output=out.txt"]
    given = [str(LAUNCH / "slurm.sh"), *arguments(sources, tmp_path / "runs", *TRAINING)]
    with two_nodes(tmp_path / "slurm") as variables:
        assert ask(["sbatch", *sizes, *given], folder, variables | told) == 0
        until = time.monotonic() + 400
        while waiting(variables) and time.monotonic() < until:
            # SLURM lets a job that is started again wait for some minutes.
            ask(["scontrol", "update", "JobId=1", "StartTime=now"], folder, variables)
            time.sleep(1)
    text = (folder / "out.txt").read_text()
    assert len(list((tmp_path / "runs/test/starts").iterdir())) == (2 if kind else 1), text
    assert ("SIGUSR1: stopped after 16 images; SLURM starts it again" in text) == (kind == "usr1"), text
    assert_same_weights(final(tmp_path / "runs"), beside)


def ask(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Run a command of SLURM. Return its exit code."""
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, check=False
    ).returncode

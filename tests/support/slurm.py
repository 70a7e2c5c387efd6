"""A SLURM of two machines, which are both this one: its real daemons, for tests of tools/launch/slurm.sh."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import free_port

COMMANDS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "unshare")
CONFIG = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs={cores}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def no_slurm() -> str | None:
    """Return why no SLURM can be started here, or None."""
    if lost := [name for name in COMMANDS if shutil.which(name) is None]:
        return f"no {', '.join(lost)} (Debian: slurmctld, slurmd, slurm-client)"
    return None if os.geteuid() == 0 else "daemons that start jobs need root"


@contextmanager
def two_nodes(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons. Yield variables for sbatch and the other commands."""
    (folder / "state").mkdir(parents=True)
    first = free_port()
    ports = first, first + 1, first + 2
    text = CONFIG.format(folder=folder, ports=ports, host=platform.node(), cores=os.cpu_count())
    (folder / "slurm.conf").write_text(text)
    # Names that resolve on the machines alone, as those of a cluster do.
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + "\n127.0.0.1 node1\n127.0.0.1 node2\n")
    named = f"mount --bind {folder}/hosts /etc/hosts && exec slurmd -D -N"
    commands = [["slurmctld", "-D"], *(["unshare", "--mount", "sh", "-c", f"{named} node{i}"] for i in (1, 2))]
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    daemons = []
    try:
        for command in commands:
            log = open(folder / f"daemon{len(daemons)}.log", "w")  # noqa: SIM115
            daemons.append(
                subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)
            )
            log.close()
            time.sleep(1)
        until = time.monotonic() + 60
        while states(variables) != {"idle"}:
            assert time.monotonic() < until, [path.read_text() for path in folder.glob("*.log")]
            time.sleep(0.2)
        yield variables
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def states(variables: dict[str, str]) -> set[str]:
    return set(_output(["sinfo", "--noheader", "--format=%t"], variables).split())


def waiting(variables: dict[str, str]) -> bool:
    """Return whether a job waits or runs."""
    return bool(_output(["squeue", "--noheader"], variables).strip())


def _output(command: list[str], variables: dict[str, str]) -> str:
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    return done.stdout

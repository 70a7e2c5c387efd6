"""How a training ends when a signal asks for it: all processes finish the step, and one checkpoint is written."""

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import shutil
import subprocess

import click
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from dreamportrait.core.launch import is_first_process
from dreamportrait.core.processes import largest
from dreamportrait.core.signals import Interrupted, Signals, held_back
from dreamportrait.core.signals import name_of as signal_name
from dreamportrait.training.checkpoints import Checkpoints
from dreamportrait.training.checkpoints import name_of as checkpoint_name
from dreamportrait.training.every import CountedModule


class StopOnSignal(Callback):
    """After each step, all processes agree whether one of them has received a signal. It must be the last callback."""

    def __init__(self, signals: Signals, checkpoints: Checkpoints) -> None:
        self.signals, self.checkpoints = signals, checkpoints
        self.agreed = 0  # number of the signal. 0 = none

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, CountedModule)
        if pl_module.images >= pl_module.config.total_images:
            return  # there is nothing left to stop
        self.agreed = largest(self.signals.received)
        if not self.agreed:
            return
        if not self.checkpoints.is_due(pl_module):  # otherwise this step has written one
            self.checkpoints.act(trainer, pl_module)
        trainer.should_stop = True

    def check(self, module: CountedModule) -> None:
        """Raise Interrupted if the training was stopped."""
        if not self.agreed:
            return
        path = self.checkpoints.folder / checkpoint_name(module.images)
        then = "SLURM starts it again" if requeue(self.agreed) else "the same command continues"
        raise Interrupted(self.agreed, f"stopped after {module.images} images; {then} from {path}")


def requeue(number: int) -> bool:
    """Ask SLURM to start this job again, if the signal is the one before the end of its time. Return whether it did."""
    job, command = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if signal_name(number) != "SIGUSR1" or not job or command is None or not is_first_process():
        return False
    done = subprocess.run([command, "requeue", job], check=False)
    if done.returncode:
        click.echo(f"scontrol requeue {job} failed with exit code {done.returncode}; submit the job again", err=True)
    return done.returncode == 0


class NoHandlers(_SignalConnector):
    """In place of Lightning's signal handlers.

    These broadcast to other processes inside the handler, which hangs when those are in another exchange.
    """

    def register_signal_handlers(self) -> None:
        pass

    def teardown(self) -> None:
        pass


def start_readers_server() -> None:
    """Start the server process that forks the readers of pictures, so that no signal reaches it and the readers.

    Ctrl-C and schedulers signal whole groups of processes. Without readers, the step could not be finished.
    """
    multiprocessing.resource_tracker.ensure_running()  # unblocks signals when it is started, so it comes first
    with held_back():
        multiprocessing.forkserver.ensure_running()

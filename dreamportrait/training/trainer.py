"""The Lightning trainer for runs that count images: processes, devices, loggers, and a run from start to result."""

import logging
import secrets
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from filelock import BaseFileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from dreamportrait.core.config import RunConfig
from dreamportrait.core.errors import first_line
from dreamportrait.core.launch import is_first_process
from dreamportrait.core.processes import total
from dreamportrait.core.signals import Signals
from dreamportrait.data.loader import Loader
from dreamportrait.training.checkpoints import Checkpoints
from dreamportrait.training.devices import count_devices, count_processes, on_gpu
from dreamportrait.training.every import CountedModule
from dreamportrait.training.meeting import Together
from dreamportrait.training.stopping import NoHandlers, StopOnSignal, start_readers_server
from dreamportrait.training.strategy import SharedBatch

_log = logging.getLogger(__name__)
_WANDB_SECONDS = 30  # for the server of W&B to answer at the start


class Batches(Protocol):
    """What a run is trained on: a Loader of pictures, or numbers of batches that the step draws itself."""

    workers: int  # processes that read pictures

    def __iter__(self) -> Iterator[Any]: ...

    def load_state_dict(self, state: dict[str, int]) -> None: ...


@dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to start; each system builds its own parts."""

    config: RunConfig
    module: CountedModule
    loader: Batches
    trainer: Trainer
    checkpoint: Path | None  # to continue from
    finish: Callable[[], Path]  # writes the result and returns its folder; called in the first process
    lock: BaseFileLock | None = None  # on the run's folder, in the first process

    def train(self, signals: Signals) -> Path | None:
        """Train to the end of the last stage. Return the folder of the result, in the first process.

        Raise Interrupted if a signal stopped the training.
        """
        try:
            with signals.collected():
                self._fit(signals)
                return self.finish() if self.trainer.is_global_zero else None
        except BaseException:
            end_children(self.trainer)
            raise
        finally:
            if self.lock is not None:
                self.lock.release()

    def _fit(self, signals: Signals) -> None:
        if not self.config.total_images:  # only a prior was fitted
            return
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        stop = StopOnSignal(signals, next(each for each in callbacks if isinstance(each, Checkpoints)))
        callbacks.append(stop)
        if self.loader.workers:
            start_readers_server()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # used by Lightning
                self.trainer.fit(self.module, self.loader, ckpt_path=self.checkpoint)
        except torch.OutOfMemoryError as error:
            remedy = "raise accumulate of the stage, lower data.batch, or set guidance.checkpoint=true"
            raise ValueError(f"the memory of the GPU is not enough: {first_line(error)}; {remedy}") from error
        except RuntimeError as error:
            if not is_lost_process(error):
                raise
            if watched(self.trainer):
                raise SystemExit(1) from error
            problem = "another process of this run has ended, and its own message says why"
            raise ValueError(f"{problem}; the same command continues from the last checkpoint") from error
        stop.check(self.module)
        if self.module.images < self.config.total_images:
            raise ValueError(f"the training ended after {self.module.images} images; the same command continues it")


def is_lost_process(error: RuntimeError) -> bool:
    """Return whether an exchange failed because another process has ended."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def watched(trainer: Trainer) -> bool:
    """Return whether the cause of a lost process has been told."""
    strategy = trainer.strategy
    return isinstance(strategy, SharedBatch) and strategy.watch is not None and strategy.watch.told


def end_children(trainer: Trainer, patience: float = 10.0) -> None:
    """End the processes that this one started. They get some seconds to end on their own, as their peer is gone."""
    children: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + patience
    for child in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()


class Continuation(Callback):
    """Continue the data after the checkpoint's last image. Lightning's own counters start at 0 and are not used."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)  # otherwise a finished run that was made longer would not continue

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CountedModule)
        self.loader.load_state_dict({"images": pl_module.images})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Count, for the log, how often pictures were skipped since this start."""
        assert isinstance(pl_module, CountedModule)
        if isinstance(self.loader, Loader) and self.loader.skip:
            pl_module.measured["skipped_images"] = total(self.loader.skipped)


def make_trainer(config: RunConfig, callbacks: list[Callback], together: Together | None = None) -> Trainer:
    """Make the trainer: it moves data to devices and starts processes; its own counting and files are turned off.

    together: the processes that a launcher has started. None = there are none.
    """
    processes, devices = count_processes(config), count_devices(config)
    backend, patience = "nccl" if on_gpu(config) else "gloo", config.trainer.patience_seconds
    shared = SharedBatch(together or Together(), backend, patience) if processes > 1 else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*srun.* command is available")  # other launchers are fine, too
        trainer = Trainer(
            accelerator="gpu" if on_gpu(config) else "cpu",
            devices=devices,
            num_nodes=processes // devices,
            strategy=shared or "auto",
            use_distributed_sampler=False,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=make_logger(config) or False,
            log_every_n_steps=1,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=config.folder,
        )
    trainer._signal_connector = NoHandlers(trainer)
    return trainer


def make_logger(config: RunConfig) -> Logger | None:
    """Make the logger that is used in addition to the CSV file. A continued run continues its page on the server."""
    mode = config.logging.wandb
    if mode == "off":
        return None
    path = config.folder / "wandb_id.txt"
    if is_first_process() and not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    logger = partial(
        WandbLogger,
        name=config.run.name,
        id=path.read_text(encoding="utf-8") if path.exists() else None,
        resume="allow",
        project=config.logging.project,
        save_dir=str(config.folder),
        config=config.model_dump(mode="json"),
    )
    if mode == "online" and is_first_process():
        import wandb

        online = logger(settings=wandb.Settings(init_timeout=_WANDB_SECONDS))
        if _connects(online):
            return online
        mode = "offline"
        upload = f"wandb sync {config.folder / 'wandb'}/offline-run-*"
        _log.warning("the values of this start are kept on this machine; `%s` uploads them later", upload)
    return logger(offline=mode == "offline")


def _connects(logger: WandbLogger) -> bool:
    """Return whether the server of W&B can be used. That it cannot is no reason not to train."""
    import wandb
    import wandb.errors

    try:
        _ = logger.experiment
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        wandb.teardown()  # otherwise the name of this start stays in use
        _log.warning("W&B cannot be used: %s", first_line(error))
        return False
    return True


def quieten() -> None:
    """Silence Lightning's messages about devices and its loop, which do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

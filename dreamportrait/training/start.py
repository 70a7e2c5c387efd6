"""From a command to a training run: check everything, build everything, record what was started."""

import logging
import os
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from dreamportrait.config import Config, ConfigError, Problem, batch_problems, concerns, read_config
from dreamportrait.data.dataset import make_pictures
from dreamportrait.data.loader import Loader
from dreamportrait.training import build, run_folder
from dreamportrait.training.callbacks import make_callbacks
from dreamportrait.training.loop import NonFiniteLoss
from dreamportrait.training.module import DreamPortraitModule
from dreamportrait.training.parallel import SharedBatch
from dreamportrait.training.summary import summarize
from dreamportrait.weights.portrait import TextSource, save_portrait
from dreamportrait.weights.store import load_config


@dataclass(frozen=True)
class Plan:
    """What a command asks for."""

    config: Config
    checkpoint: Path | None  # to continue from
    problems: list[Problem]


def plan(path: Path, overrides: tuple[str, ...], resume: str, look_only: bool = False) -> Plan:
    """Nothing is loaded yet. Raises where the configuration itself is wrong, with all else that is wrong."""
    config, problems = read_config(path, overrides)
    if config is None:
        raise ConfigError(str(path), problems)
    checkpoint, others = run_folder.find_checkpoint(config, resume, look_only)
    wrong = [key for problem in problems for key in problem.keys]
    others += batch_problems(config, count_processes(config)) + build.missing(config)
    others = [problem for problem in others if not concerns(problem, wrong)]
    if problems:
        raise ConfigError(str(path), problems + others)
    return Plan(config, checkpoint, others)


def describe(made: Plan) -> str:
    text = summarize(made.config, count_processes(made.config))
    return f"{text}\nfrom      {made.checkpoint or 'the beginning'}"


# Processes.


def count_processes(config: Config) -> int:
    """Of all machines: torchrun's where it started this, else those that Lightning will start."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _devices(config) * config.trainer.nodes


def _devices(config: Config) -> int:
    """Processes of this machine."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if config.trainer.devices != "auto":
        return config.trainer.devices
    return torch.cuda.device_count() if _on_gpu(config) else 1


def _on_gpu(config: Config) -> bool:
    wanted = config.trainer.accelerator
    return wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available())


def own_device(config: Config) -> torch.device:
    number = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device("cuda", number) if _on_gpu(config) else torch.device("cpu")


# Runs.


@dataclass(frozen=True)
class Run:
    config: Config
    module: DreamPortraitModule
    loader: Loader
    trainer: Trainer
    checkpoint: Path | None

    def train(self) -> Path:
        """To the end of the last stage. -> where the result was written"""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # between Lightning and PyTorch
                self.trainer.fit(self.module, self.loader, ckpt_path=self.checkpoint)
        except NonFiniteLoss as error:
            raise click.ClickException(str(error)) from error
        if self.module.images < self.config.total_images:  # Lightning ends without an error when it is interrupted
            raise click.Abort
        if self.trainer.is_global_zero:
            save_result(self.config, self.module)
        return self.config.folder / run_folder.RESULT


class Continuation(Callback):
    """The data continue where the checkpoint left them. Lightning's own counters start anew: images count here."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)  # a finished one would count as finished though the run has become longer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DreamPortraitModule)
        self.loader.load_state_dict({"images": pl_module.images})


def prepare(made: Plan, command: list[str]) -> Run:
    config = made.config
    _quieten()
    device, processes = own_device(config), count_processes(config)
    pictures = make_pictures(config.data)
    build.check_pictures(config, pictures, build.network_configs(config)[0])
    text = build.make_text(config, device, pictures)
    portrait, critic = build.make_networks(config, build.text_width(config))
    module = DreamPortraitModule(portrait, critic, config, build.make_guide(config, device))
    prompts = list(config.samples.prompts)
    metrics = build.make_metrics(config, pictures, text, portrait, device)
    callbacks = make_callbacks(config, text.encode(prompts) if prompts else None, metrics)
    if run_folder.is_first_process():
        run_folder.record_start(config, command, made.checkpoint)
    trainer = make_trainer(config, callbacks)
    loader = build.make_loader(config, pictures, text, trainer.global_rank, processes)
    trainer.callbacks.append(Continuation(loader))  # type: ignore[attr-defined]
    return Run(config, module, loader, trainer, made.checkpoint)


def make_trainer(config: Config, callbacks: list[Callback]) -> Trainer:
    """Lightning moves things to devices and starts processes; what it would count or write itself is off."""
    processes, devices = count_processes(config), _devices(config)
    backend = "nccl" if _on_gpu(config) else "gloo"
    return Trainer(
        accelerator="gpu" if _on_gpu(config) else "cpu",
        devices=devices,
        num_nodes=processes // devices,
        strategy=SharedBatch(process_group_backend=backend) if processes > 1 else "auto",
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


def make_logger(config: Config) -> Logger | None:
    """Besides the CSV file. A continued run continues its page."""
    mode = config.logging.wandb
    if mode == "off":
        return None
    path = config.folder / "wandb_id.txt"
    if run_folder.is_first_process() and not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return WandbLogger(
        name=config.run.name,
        id=path.read_text(encoding="utf-8") if path.exists() else None,
        resume="allow",
        project=config.logging.project,
        save_dir=str(config.folder),
        offline=mode == "offline",
        config=config.model_dump(mode="json"),
    )


def save_result(config: Config, module: DreamPortraitModule) -> None:
    """The running average, as a folder that load_portrait reads."""
    save_portrait(
        config.folder / run_folder.RESULT,
        module.averaged,
        module.critic.discriminator,
        TextSource(config.text.clip),
        licence=load_config(build.pretrained_folder(config.model.pretrained)).licence,
        pretrained=config.model.pretrained,
        overwrite=True,
    )


def _quieten() -> None:
    """Lightning tells of devices and of its own loop, which both are known here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

"""Prepare a pretraining run from a command: check the configuration, build all parts, record the start."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback

from dreamportrait.core import settings
from dreamportrait.core.launch import is_first_process
from dreamportrait.core.machine import code_versions
from dreamportrait.core.settings import ConfigError, Problem, concerns, problems_of
from dreamportrait.core.signals import Signals
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.folder import load_eg3d_config, load_generator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.folder import generator_folder, portable, save_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.module import Draws, PretrainingModule
from dreamportrait.systems.freestyle.names import RESULT
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.perceptual import check_perceptual, make_perceptual
from dreamportrait.systems.freestyle.run_config import FreestyleConfig
from dreamportrait.systems.freestyle.sheets import SampleSheets, compared
from dreamportrait.training import run_folder
from dreamportrait.training.checkpoints import Checkpoints
from dreamportrait.training.continuing import check_file
from dreamportrait.training.devices import check_devices, count_processes, launch_problems, own_device
from dreamportrait.training.guard import NonFiniteGuard
from dreamportrait.training.log import Log
from dreamportrait.training.meeting import Facts, Together
from dreamportrait.training.resume import find_checkpoint, flat
from dreamportrait.training.trainer import Continuation, TrainingRun, make_trainer, quieten
from dreamportrait.weights import registry


@dataclass(frozen=True)
class Plan:
    """A checked request for a pretraining run."""

    config: FreestyleConfig
    checkpoint: Path | None  # to resume from. None = start anew
    problems: list[Problem]

    def facts(self) -> Facts:
        """Return what must be the same in all processes of the run."""
        found = self.checkpoint and self.checkpoint.name
        return {"the checkpoint to continue from": found} | flat(self.config.model_dump(mode="json")) | code_versions()


def plan(path: Path, overrides: tuple[str, ...], resume: str, look_only: bool = False) -> Plan:
    """Check a command without loading anything. Raise ConfigError with all problems if the configuration is invalid."""
    config, problems = settings.read(FreestyleConfig, path, overrides)
    if config is None:
        raise ConfigError(str(path), problems)
    checkpoint, others = find_checkpoint(config, resume, look_only)
    wrong = [key for problem in problems for key in problem.keys]
    others += launch_problems(config) + _uneven(config) + missing(config)
    others = [problem for problem in others if not concerns(problem, wrong)]
    if problems:
        raise ConfigError(str(path), problems + others)
    return Plan(config, checkpoint, others)


def _uneven(config: FreestyleConfig) -> list[Problem]:
    batch, processes = config.data.batch, count_processes(config)
    text = f"a batch of {batch} does not divide among {processes} processes; choose a multiple"
    return [Problem(("data.batch",), text)] if batch % processes else []


def missing(config: FreestyleConfig) -> list[Problem]:
    """Return a problem for everything that the configuration names and that is missing or does not fit."""
    checks: dict[str, Callable[[FreestyleConfig], object]] = {
        "trainer.accelerator": check_devices,
        "model": network_config,
        "perceptual": lambda c: _check_distance(c.perceptual),
        "tune.perceptual": lambda c: _check_distance(c.tune.perceptual),
    }
    return problems_of(config, checks)


def _check_distance(source: str) -> None:
    """Raise WeightsError unless a perceptual distance can be made. Models of the hub are not looked for."""
    check_perceptual(source)
    kind, _, name = source.partition(":")
    if kind == "clip" and name.startswith("mini/"):
        registry.locate(name)


def generator_config(config: FreestyleConfig) -> GeneratorConfig:
    """Return the sizes of the generator, in the precision of this run."""
    stored = load_eg3d_config(generator_folder(config.model.pretrained)).generator
    return replace(stored, precision=config.trainer.precision)


def network_config(config: FreestyleConfig) -> I2TConfig:
    """Return the sizes of H."""
    return I2TConfig.fitting(generator_config(config), **config.model.sizes())


def describe(made: Plan) -> str:
    """Describe the run that a plan would start, for --dry-run."""
    c, t = made.config, made.config.trainer
    lines = []
    try:
        sizes = network_config(c)
        with torch.device("meta"):
            network = ImageToTriplane(sizes)
        count = sum(p.numel() for p in network.parameters())
        lines.append(
            f"H         {count:,} parameters: {sizes.image_resolution} pixels, code {sizes.code_channels} x "
            f"{sizes.code_size} x {sizes.code_size}, layers at {', '.join(map(str, sizes.resolutions))}"
        )
    except (ValueError, OSError):
        lines.append("H         unknown as yet; the problems below say why")
    lines += [
        f"generator {c.model.pretrained}, frozen; {c.pretrain.statistics:,} heads give the planes' mean and spread",
        *(f"stage     {each.name}: {each.images:,} images, {each.images // c.data.batch:,} steps" for each in c.stages),
        f"losses    planes ({c.pretrain.plane_loss}), w; renders in the last {c.pretrain.render_share:.0%} of the "
        f"steps, perceptual {c.perceptual}",
        f"runs on   {count_processes(c)} processes, batches of {c.data.batch}",
        f"every     {t.log_every_images:,} images a log line, {t.sample_every_images:,} a sample sheet, "
        f"{t.save_every_images:,} a checkpoint",
        f"into      {c.folder}",
        f"from      {made.checkpoint or 'the beginning'}",
    ]
    return "\n".join(lines)


def prepare(made: Plan, command: list[str], together: Together, signals: Signals | None = None) -> TrainingRun:
    """Build all parts of the run and record its start. together: the processes that a launcher has started."""
    config = made.config
    quieten()
    device = own_device(config)
    generator = load_generator(generator_folder(config.model.pretrained), config.trainer.precision)
    torch.manual_seed(config.run.seed)
    styled = PictureTo3D(ImageToTriplane(network_config(config)), generator)
    module = PretrainingModule(styled, config, make_perceptual(config.perceptual, config.run.offline, device))
    if made.checkpoint is not None:
        check_file(made.checkpoint, module.check)  # before anything is written
    lock = run_folder.claim(config.folder) if is_first_process() else None
    if is_first_process():
        run_folder.record_start(config, command, made.checkpoint)
    loader = Draws(config.data.batch, config.total_images)
    trainer = make_trainer(config, make_callbacks(config, generator), together)
    trainer.callbacks.insert(0, Continuation(loader))  # type: ignore[attr-defined]
    finish = partial(save_result, config, module, generator)
    return TrainingRun(config, module, loader, trainer, made.checkpoint, finish, lock)


def make_callbacks(config: FreestyleConfig, generator: TriPlaneGenerator) -> list[Callback]:
    """Make the callbacks in the order they act: the guard, sheets, the log, then checkpoints."""
    folder, every = config.folder, config.trainer
    callbacks: list[Callback] = [NonFiniteGuard(folder)]
    if every.sample_every_images:
        callbacks.append(SampleSheets(every.sample_every_images, folder, generator))
    return [*callbacks, Log(every.log_every_images, folder), Checkpoints(every.save_every_images, folder, every.keep)]


def save_result(config: FreestyleConfig, module: PretrainingModule, generator: TriPlaneGenerator) -> Path:
    """Save the running average in the run's folder. Return the folder written."""
    folder, network = config.folder / RESULT, module.averaged
    pretrained, editor = config.model.pretrained, config.edit.source
    save_model(
        folder,
        network,
        generator,
        licence=load_eg3d_config(generator_folder(pretrained)).licence,
        pretrained=portable(pretrained),
        editor=None if editor is None else portable(editor),
        perceptual=config.tune.perceptual,
        few_shot=config.edit.settings(),
        tuning=config.tune.settings(),
        sheet=compared(network, generator),
        overwrite=True,
    )
    return folder

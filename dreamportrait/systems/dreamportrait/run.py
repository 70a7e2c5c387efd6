"""Prepare a training run from a command: check the configuration, build all parts, record the start."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dreamportrait.core import settings
from dreamportrait.core.launch import is_first_process
from dreamportrait.core.machine import code_versions
from dreamportrait.core.settings import ConfigError, Problem, concerns
from dreamportrait.core.signals import Signals
from dreamportrait.data.dataset import make_pictures
from dreamportrait.eg3d.folder import load_eg3d_config
from dreamportrait.prior.pair_critic import PairGame
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.callbacks import make_callbacks
from dreamportrait.systems.dreamportrait.config import Config, batch_problems
from dreamportrait.systems.dreamportrait.continuing import check_checkpoint
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.folder import TextSource, save_portrait
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.preflight import check_pictures, missing
from dreamportrait.systems.dreamportrait.prior import FOLDER as PRIOR
from dreamportrait.systems.dreamportrait.prior import PAIRS, fit_prior, fitted_inverter, fitted_pairs
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.summary import summarize
from dreamportrait.text.loading import load_clip
from dreamportrait.training import run_folder
from dreamportrait.training.devices import count_processes, launch_problems, own_device
from dreamportrait.training.meeting import Facts, Together
from dreamportrait.training.resume import find_checkpoint, flat
from dreamportrait.training.trainer import Continuation, TrainingRun, make_trainer, quieten


@dataclass(frozen=True)
class Plan:
    """A checked request for a training run."""

    config: Config
    checkpoint: Path | None  # to resume from. None = start anew
    problems: list[Problem]

    def facts(self) -> Facts:
        """Return what must be the same in all processes of the run."""
        settings = flat(self.config.model_dump(mode="json"))
        found = self.checkpoint and self.checkpoint.name
        return {"the checkpoint to continue from": found} | settings | code_versions()


def plan(path: Path, overrides: tuple[str, ...], resume: str, look_only: bool = False) -> Plan:
    """Check a command without loading anything. Raise ConfigError with all problems if the configuration is invalid."""
    config, problems = settings.read(Config, path, overrides)
    if config is None:
        raise ConfigError(str(path), problems)
    checkpoint, others = find_checkpoint(config, resume, look_only)
    wrong = [key for problem in problems for key in problem.keys]
    others += launch_problems(config)
    others += batch_problems(config, count_processes(config), build.group_size(config)) + missing(config)
    others = [problem for problem in others if not concerns(problem, wrong)]
    if problems:
        raise ConfigError(str(path), problems + others)
    return Plan(config, checkpoint, others)


def describe(made: Plan) -> str:
    """Describe the run that a plan would start, for --dry-run."""
    text = summarize(made.config, count_processes(made.config))
    return f"{text}\nfrom      {made.checkpoint or 'the beginning'}"


def prepare(made: Plan, command: list[str], together: Together, signals: Signals | None = None) -> TrainingRun:
    """Build all parts of the run and record its start.

    together: the processes that a launcher has started. signals: let a text prior be saved before the process ends.
    """
    config = made.config
    quieten()
    device, processes = own_device(config), count_processes(config)
    pictures = make_pictures(config.data)
    check_pictures(config, pictures, build.network_configs(config)[0])
    text = build.make_text(config, device, pictures)
    portrait, critic = build.make_networks(config, build.text_width(config))

    def make_module() -> DreamPortraitModule:
        guide = build.make_guide(config, device)
        return DreamPortraitModule(portrait, critic, config, guide, make_pair_game(config, portrait))

    module = None
    if made.checkpoint is not None:
        module = make_module()
        check_checkpoint(made.checkpoint, module, module.configure_optimizers(), config)  # before anything is written
    lock = run_folder.claim(config.folder) if is_first_process() else None
    if is_first_process():
        run_folder.record_start(config, command, made.checkpoint)
    if config.prior is not None and module is None:
        load = partial(load_clip, config.text.clip, config.run.offline, device)
        where, seed = config.folder / PRIOR, config.run.seed
        fit_prior(config.prior, portrait, pictures, text, load, where, seed, device, signals)
        if is_first_process():
            save(config, config.folder / PRIOR / run_folder.RESULT, portrait, None)
    module = module or make_module()  # its copies of the networks hold the prior
    prompts = list(config.samples.prompts) if config.trainer.sample_every_images else []
    metrics = build.make_metrics(config, pictures, text, portrait, device)
    callbacks = make_callbacks(config, text.encode(prompts) if prompts else None, metrics)
    trainer = make_trainer(config, callbacks, together)
    loader = build.make_loader(config, pictures, text, trainer.global_rank, processes)
    trainer.callbacks.insert(0, Continuation(loader))  # type: ignore[attr-defined]
    return TrainingRun(config, module, loader, trainer, made.checkpoint, partial(save_result, config, module), lock)


def make_pair_game(config: Config, portrait: PortraitGenerator) -> PairGame | None:
    """Make the critic of pairs of w and text, if the configuration asks for it."""
    if not config.loss.pair_weight:
        return None
    path = Path(config.loss.pairs) if config.loss.pairs else config.folder / PRIOR / PAIRS
    return PairGame(fitted_pairs(path, portrait.config.w_dim, portrait.conditioning.text_width))


def save_result(config: Config, module: DreamPortraitModule) -> Path:
    """Save the running average in the run's folder. Return the folder written."""
    folder = config.folder / run_folder.RESULT
    save(config, folder, module.averaged, module.critic)
    return folder


def save(config: Config, folder: Path, generator: PortraitGenerator, critic: Critic | None) -> None:
    """Save networks of the run in the format of load_portrait."""
    save_portrait(
        folder,
        generator,
        None if critic is None else critic.discriminator,
        TextSource(config.text.clip),
        inverter=fitted_inverter(config.folder / PRIOR),
        projection=None if critic is None else critic.projection,
        licence=load_eg3d_config(build.pretrained_folder(config.model.pretrained)).licence,
        pretrained=config.model.pretrained,
        overwrite=True,
    )

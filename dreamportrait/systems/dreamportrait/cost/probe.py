"""A few real training steps on this machine: seconds for a picture, and peak memory.

Networks that are not on this machine get random weights of the same sizes, because neither time nor memory depends on
the weights. Loading of pictures is not measured.
"""

import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from lightning.pytorch import Callback
from torch import nn

from dreamportrait.core.config import Logging, Stage
from dreamportrait.core.errors import WeightsError
from dreamportrait.core.timing import PeakMemory, finish, seconds
from dreamportrait.data.dataset import Batch, Conditions, Words
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import orbit
from dreamportrait.guidance.architectures import UNETS, make_unet, make_vae
from dreamportrait.guidance.guides import DIFFUSION_KINDS, DiffusionGuide, Guide
from dreamportrait.guidance.stable_diffusion import UNET_PRECISION, VAE_PRECISION, StableDiffusion
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.balance import GAN, GUIDANCE
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.cost.outline import ASSUMED_DIFFUSION, TEXT_WIDTH
from dreamportrait.systems.dreamportrait.cost.shapes import CAPTION, PROMPT_LENGTH
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.step_settings import step_settings
from dreamportrait.text.encoder import TextFeatures
from dreamportrait.training.devices import own_device
from dreamportrait.training.trainer import make_trainer, quieten
from dreamportrait.weights.diffusion_sources import SourceError, locate_diffusion


@dataclass(frozen=True)
class Probe:
    seconds: float  # for one picture of one process
    memory: float  # bytes: peak of the tensors of a step and of the networks; on a CPU, growth of the resident set


def probe(config: Config, stage: Stage, processes: int, repeats: int) -> Probe:
    """Run steps of a stage as one of `processes` processes would, `repeats` of each kind."""
    found: list[Probe] = []
    with tempfile.TemporaryDirectory() as folder:
        own = _of_one_process(config, stage, processes, folder)
        device = own_device(own)
        memory = PeakMemory(device.type)
        memory.start()
        module = _module(own, device)
        inside_trainer(module, lambda: found.append(_measure(module, own, device, repeats, memory)))
    return found[0]


def _measure(module: DreamPortraitModule, config: Config, device: torch.device, repeats: int, memory: Any) -> Probe:
    count, batch = config.data.batch, _batch(module, config.data.batch).to(device)
    shares = kinds(config)
    times: dict[int, list[float]] = {number: [] for number in shares}

    def step(number: int) -> None:
        module.images = number * count
        module.training_step(batch, 0)

    step(next(iter(shares)))  # allocates the optimisers' moments
    finish(device.type)
    for _ in range(repeats):
        for number, found in times.items():
            found.append(seconds(lambda number=number: step(number), device.type))  # type: ignore[misc]
    mean = sum(share * sum(times[number]) / repeats for number, share in shares.items())
    return Probe(mean / count, memory.megabytes() * 2**20)


def kinds(config: Config) -> dict[int, float]:
    """Return an example step of each kind (which regularisers are due), and the share of steps of this kind."""
    loss, batch = config.loss, config.data.batch
    period = math.lcm(loss.r1_every, loss.density_every)
    example: dict[tuple[bool, bool], int] = {}
    counted: Counter[tuple[bool, bool]] = Counter()
    for number in range(period, 2 * period):  # not the first one, which measures the balance
        now = step_settings(config, number * batch)
        example.setdefault((now.r1_due, now.density_due), number)
        counted[now.r1_due, now.density_due] += 1
    return {number: counted[kind] / period for kind, number in example.items()}


def _of_one_process(config: Config, stage: Stage, processes: int, folder: str) -> Config:
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"folder": folder, "offline": True}),
            "data": config.data.model_copy(update={"batch": config.data.batch // processes}),
            "stages": (stage.model_copy(update={"images": 10**9}),),
            "loss": config.loss.model_copy(update={"balance_every_images": 0}),
            "trainer": config.trainer.model_copy(update={"devices": 1, "nodes": 1}),
            "logging": Logging(),
        }
    )


def _module(config: Config, device: torch.device) -> DreamPortraitModule:
    module = DreamPortraitModule(*_networks(config), config, _guide(config, device))
    module.balance.add({GAN: 1.0, GUIDANCE: 1.0})
    return module


def _networks(config: Config) -> tuple[PortraitGenerator, Critic]:
    try:
        width = build.text_width(config)
    except (WeightsError, OSError):
        width = TEXT_WIDTH
    try:
        return build.make_networks(config, width)
    except (WeightsError, OSError):
        lower: Any = {"precision": config.trainer.precision}
        generator, judge = TriPlaneGenerator(GeneratorConfig(**lower)), DualDiscriminator(DiscriminatorConfig(**lower))
        portrait = PortraitGenerator(generator, build.conditioning_config(config, width))
        return portrait, Critic(judge, width if config.loss.text_aware_discriminator else None)


def _guide(config: Config, device: torch.device) -> Guide | None:
    g = config.guidance
    if not config.needs_guidance or g.kind not in DIFFUSION_KINDS:
        return build.make_guide(config, device)
    try:
        locate_diffusion(g.source, offline=True)
    except SourceError:
        return DiffusionGuide(_untrained(config, device), g)
    return build.make_guide(config, device)


def _untrained(config: Config, device: torch.device) -> StableDiffusion:
    source, precision = config.guidance.source, config.guidance.precision or config.trainer.precision
    unet = make_unet(source if source in UNETS else ASSUMED_DIFFUSION)
    width = unet.config["cross_attention_dim"]
    return StableDiffusion(
        nn.Module.to(unet, device, UNET_PRECISION[precision]),
        nn.Module.to(make_vae(), device, VAE_PRECISION[precision]),
        DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod,
        "epsilon",
        lambda prompts: torch.zeros(len(prompts), PROMPT_LENGTH, width, device=device),
        checkpoint=config.guidance.checkpoint,
    )


def _batch(module: DreamPortraitModule, count: int) -> Batch:
    portrait, numbers = module.generator, torch.Generator().manual_seed(1)
    c, width = portrait.config, portrait.conditioning.text_width
    shape = count, 3, c.image_resolution, c.image_resolution
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=numbers)
    camera = orbit([20.0 * i / count - 10 for i in range(count)], 0.0, c.camera_radius, c.camera_pivot)
    words = torch.randn(count, CAPTION, width, generator=numbers)
    text = TextFeatures(words, words[:, -1], torch.ones(count, CAPTION, dtype=torch.bool))
    said = Conditions(camera, [Words(i, 0, "a face") for i in range(count)], text)
    return Batch(pixels, said, said)


class _Inside(Callback):
    """Run `work` inside the trainer, where optimisers are wrapped and networks placed as in training, then stop."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        with torch.enable_grad():
            self.work()
        trainer.should_stop = True


class _NoData:
    """A data loader with one dummy batch; Lightning does not start without one."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        return iter([0])


def inside_trainer(module: DreamPortraitModule, work: Callable[[], None]) -> None:
    quieten()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # caused by Lightning's use of PyTorch
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        make_trainer(module.config, [_Inside(work)]).fit(module, _NoData())

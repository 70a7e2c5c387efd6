"""The bill of a training: parameters, memory of a process, time of each stage, and disk space."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dreamportrait.core.config import Prior, Stage
from dreamportrait.prior.content import Teller
from dreamportrait.prior.flow import TextFlow
from dreamportrait.prior.gaussian import TextGaussian
from dreamportrait.prior.inversion import Inverter, PictureFeatures
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config, batch_problems
from dreamportrait.systems.dreamportrait.cost.memory import GIB, SIZES, Memory, memory, preset
from dreamportrait.systems.dreamportrait.cost.outline import Outline, moving, outline, parameters, trained
from dreamportrait.systems.dreamportrait.cost.pace import cpu_rate, recorded_seconds, render_rate
from dreamportrait.systems.dreamportrait.cost.probe import Probe, probe
from dreamportrait.systems.dreamportrait.cost.shapes import Rehearsal, forward_flops
from dreamportrait.systems.dreamportrait.mapper import PriorMapper

BATCHES = (2, 4)  # whose memory is measured; with a single picture, convolutions copy less than with more
PICTURES = 15_010  # of CelebAText-HQ, if the data set is not read


@dataclass(frozen=True)
class StageCost:
    name: str
    images: int
    seconds: float | None  # of all processes together: wall-clock time. None = no figure is known
    how: str
    memory: float | None = None  # bytes of a process, measured by a probe


@dataclass(frozen=True)
class Bill:
    networks: list[tuple[str, int, int]]  # name, weights, weights that train
    memory: Memory
    batch: int  # pictures at a time of a process, in the stage that needs most
    least: int  # pictures over which the discriminator computes statistics
    fits: dict[int, int | None]  # most pictures at a time, by GB of the GPU; None = not the least
    processes: int
    stages: list[StageCost]
    flops: dict[str, float]  # of one picture: plain, guided
    disk: dict[str, float]  # bytes
    assumed: list[str]


def estimate(config: Config, processes: int, gpu: str = "v100", repeats: int = 0) -> Bill:
    """Return the bill of a configuration. repeats: of a probe on this machine; 0 = use recorded figures."""
    group = build.group_size(config)
    if problems := batch_problems(config, processes, group):
        raise ValueError("; ".join(map(str, problems)))
    made = outline(config)
    rehearsal = Rehearsal(config, made)
    flops, needed = _shapes(config, rehearsal, made)
    training = [stage for stage in config.stages if stage.images]
    share = config.data.batch // processes
    batch = max((share // stage.accumulate for stage in training), default=0)
    return Bill(
        _networks(made, config),
        needed,
        batch,
        min(group, share),
        {size: needed.largest(share, size, group) for size in SIZES},
        processes,
        [_stage(config, made, stage, processes, gpu, flops, repeats) for stage in config.stages],
        flops,
        _disk(config, made),
        made.assumed,
    )


def with_preset(config: Config, gigabytes: int, processes: int) -> Config:
    """Return the configuration with precision, VAE and parts of the batch for GPUs of this size."""
    config = preset(config, gigabytes)
    made = outline(config)
    share = config.data.batch // processes
    _, needed = _shapes(config, Rehearsal(config, made), made)
    group = min(build.group_size(config), share)
    largest = needed.largest(share, gigabytes, group)
    if largest is None:
        raise ValueError(
            f"{group} pictures at a time, over which the discriminator computes statistics, need "
            f"{needed.total(group) / GIB:.1f} GB, more than {gigabytes} GB; name larger GPUs, set guidance.encoder to "
            "a small encoder, or leave out the adapters at the highest resolutions"
        )
    stages = tuple(
        stage.model_copy(update={"accumulate": share // largest}) if stage.images else stage for stage in config.stages
    )
    return config.model_copy(update={"stages": stages})


def settings(config: Config) -> list[str]:
    """Return the options of `train` that a preset stands for."""
    checkpoint = str(config.guidance.checkpoint).lower()
    found = [f"trainer.precision={config.trainer.precision}", f"guidance.checkpoint={checkpoint}"]
    found += [f"stages.{i}.accumulate={stage.accumulate}" for i, stage in enumerate(config.stages) if stage.images]
    return [f"--set {each}" for each in found]


def _shapes(config: Config, rehearsal: Rehearsal, made: Outline) -> tuple[dict[str, float], Memory]:
    """Return the mean arithmetic for one picture without and with guidance, and the memory of a process."""
    guided = config.needs_guidance
    few, more = BATCHES
    without, with_ = (rehearsal.step(False, few, regularised) for regularised in (False, True))
    first = rehearsal.step(True, few, regularised=True) if guided else with_
    second = rehearsal.step(guided, more, regularised=True)
    extra = with_.flops - without.flops  # nearly all of it is R1
    plain = without.flops + extra / config.loss.r1_every
    found = {"plain": plain / few}
    if guided:
        found["guided"] = (plain + first.flops - with_.flops) / few
    return found, memory(config, made, first, second)


def _networks(made: Outline, config: Config) -> list[tuple[str, int, int]]:
    portrait, m = made.portrait, config.model
    return [
        ("generator", parameters(portrait.generator), trained(portrait.generator, not m.freeze_generator)),
        ("semantics mapper", parameters(portrait.mapper), trained(portrait.mapper) if portrait.mapper else 0),
        ("adapters", parameters(portrait.adapters), trained(portrait.adapters)),
        ("discriminator", parameters(made.critic), trained(made.critic, not m.freeze_discriminator)),
        ("guidance: UNet", parameters(made.unet), 0),
        ("guidance: VAE", parameters(made.vae), 0),
    ]


def _stage(
    config: Config, made: Outline, stage: Stage, processes: int, gpu: str, flops: dict[str, float], repeats: int
) -> StageCost:
    if stage.prior is not None:
        return _prior(config, made, stage.name, stage.prior, gpu)
    if repeats:
        found: Probe = probe(config, stage, processes, repeats)
        seconds = stage.images * found.seconds / processes
        return StageCost(stage.name, stage.images, seconds, "probe on this machine", found.memory)
    if config.trainer.accelerator == "cpu":
        return StageCost(stage.name, stage.images, None, "no figure of a CPU is recorded; use --probe")
    guided = flops.get("guided") if stage.guidance else None
    seconds = stage.images * recorded_seconds(flops["plain"], guided, gpu) / processes
    return StageCost(stage.name, stage.images, seconds, f"recorded figures, {gpu.upper()}")


def _prior(config: Config, made: Outline, name: str, s: Prior, gpu: str) -> StageCost:
    """Return the cost of a stage that fits a prior: pictures on one GPU, small networks on the processor."""
    pictures = s.faces + (s.pictures or PICTURES)
    if made.clip is None:
        return StageCost(name, pictures, None, "text.clip is unknown here")
    read, drawn = forward_flops(made)
    cpu, on_cpu = cpu_rate(), config.trainer.accelerator == "cpu"
    rate, device = (cpu, "this machine's processor") if on_cpu else (render_rate(gpu), f"one {gpu.upper()}")
    seconds = (s.faces * (drawn + read) + (s.pictures or PICTURES) * read) / rate + _small_networks(made, s) / cpu
    return StageCost(name, pictures, seconds, f"arithmetic: {device} for pictures, this processor for small networks")


def _small_networks(made: Outline, s: Prior) -> float:
    """Return the arithmetic of fitting the small networks of a prior, and of the flow's answers."""
    mapper = made.portrait.mapper
    assert isinstance(mapper, PriorMapper) and made.clip is not None
    w_dim, text_width = made.portrait.config.w_dim, made.portrait.conditioning.text_width
    with torch.device("meta"):
        maps = PictureFeatures(made.clip).maps()
        fits = [(TextFlow(w_dim, text_width), s.flow_steps), (mapper.net, s.one_pass_steps)]
        if s.pairing == "captions":
            content = [(Inverter(maps, text_width), s.content_steps), (Teller(w_dim, text_width), s.content_steps)]
            fits += [(Inverter(maps, w_dim), s.inverter_steps), *content]
        if s.stay:
            fits += [(TextGaussian(w_dim, text_width), 2 * s.content_steps)]
    flow = fits[0][0]
    trainings = sum(6.0 * parameters(network) * s.batch * steps for network, steps in fits)
    return trainings + 2.0 * 2 * parameters(flow) * s.steps * s.answers


def _disk(config: Config, made: Outline) -> dict[str, float]:
    portrait = made.portrait
    whole, critic = stored(portrait), stored(made.critic)
    prior = stored(portrait.mapper) if isinstance(portrait.mapper, PriorMapper) else 0.0
    checkpoint = 2 * whole + critic + prior + 2 * 4 * moving(config, made)  # weights, their average, Adam's moments
    ends = sum(1 for stage in config.stages if stage.images)
    found = {"a checkpoint": checkpoint, "the checkpoints that stay": checkpoint * (config.trainer.keep + ends)}
    found["the result"] = whole + critic
    if config.prior is not None and made.clip is not None:
        with torch.device("meta"):
            features = sum(c * side**2 for c, side in PictureFeatures(made.clip).maps())
        seen = config.prior.faces + (config.prior.pictures or PICTURES) * (config.prior.pairing == "captions")
        found["features of the prior's renders and pictures (also in memory)"] = 2.0 * features * seen
    return found


def stored(network: nn.Module) -> float:
    """Return the bytes of a network in a file."""
    return float(sum(x.nbytes for x in network.state_dict().values()))


def to_dict(bill: Bill) -> dict[str, Any]:
    """Return the bill as JSON values."""
    return {
        "networks": {name: {"parameters": count, "trained": moving} for name, count, moving in bill.networks},
        "memory_bytes": {part.name: part.size for part in bill.memory.parts}
        | {"step": bill.memory.step(bill.batch), "total": bill.memory.total(bill.batch)},
        "pictures_at_a_time": bill.batch,
        "least_pictures_at_a_time": bill.least,
        "fits": {str(size): most for size, most in bill.fits.items()},
        "processes": bill.processes,
        "stages": [vars(stage) for stage in bill.stages],
        "flops": bill.flops,
        "disk_bytes": bill.disk,
        "assumed": bill.assumed,
    }

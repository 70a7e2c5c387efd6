"""The summary of a run that --dry-run prints. Networks are built without storage, and nothing is downloaded."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.dataset import MINIWORLD_FACES
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.architectures import UNETS, make_unet, make_vae
from dreamportrait.guidance.fake_score import count_trained
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.loading import empty_clip
from dreamportrait.text.tower import TextTower
from dreamportrait.weights.diffusion_sources import DIFFUSION, locate_diffusion

_GONE = "not on this machine"
_FFHQ = "not there; the sizes shown are those of the released FFHQ 512"


class Row(NamedTuple):
    part: str
    parameters: str
    trains: str  # "yes", "no" or "stored"
    source: str


def summarize(config: Config, processes: int) -> str:
    """Return tables of the networks and stages of a run, and its other main settings."""
    rows = [*_networks(config), *_text(config), *_guidance(config)]
    table = _table([Row("part", "parameters", "trains", "from"), *rows])
    return "\n\n".join([table, _table(_stages(config, processes)), _rest(config, processes)])


def _networks(config: Config) -> list[Row]:
    source = config.model.pretrained
    try:
        settings, judge = build.network_configs(config)
    except (WeightsError, OSError):
        settings, judge, source = GeneratorConfig(), DiscriminatorConfig(), f"{source}: {_FFHQ}"
    try:
        width = build.text_width(config)
    except (WeightsError, OSError):
        width, source = 1024, f"{source}; text of 1024 channels assumed"
    with torch.device("meta"):
        portrait = PortraitGenerator(TriPlaneGenerator(settings), build.conditioning_config(config, width))
        critic = Critic(DualDiscriminator(judge), width if config.loss.text_aware_discriminator else None)
    m = config.model
    return [
        _row("generator", portrait.generator, not m.freeze_generator, source),
        _row("semantics mapper", portrait.mapper, True, "new"),
        _row(f"adapters at {', '.join(portrait.adapters) or '-'}", portrait.adapters, True, "new"),
        _row("discriminator", critic, not m.freeze_discriminator, source),
    ]


def _text(config: Config) -> list[Row]:
    if config.text.store is not None:
        return [Row("text", "-", "stored", config.text.store)]
    try:
        parts = TextTower(empty_clip(config.text.clip)).parts
    except (ValueError, OSError, RuntimeError, TypeError):
        return [Row("text tower", "?", "no", f"{config.text.clip}: {_GONE}")]
    modules = [parts.token_embedding, parts.transformer, parts.ln_final]
    return [_row("text tower", nn.ModuleList(modules), False, config.text.clip)]


def _guidance(config: Config) -> list[Row]:
    g = config.guidance
    if not config.needs_guidance:
        return [Row("guidance", "-", "no", "none")]
    if g.kind == "clip":
        source = g.clip or config.text.clip
        try:
            return [_row("guidance: CLIP", empty_clip(source), False, source)]
        except (ValueError, OSError, RuntimeError, TypeError):
            return [Row("guidance: CLIP", "?", "no", f"{source}: {_GONE}")]
    try:
        folder = locate_diffusion(g.source, offline=True)
    except (ValueError, OSError):
        return _known_diffusion(config)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
    return [
        _row("guidance: UNet", unet, False, str(folder)),
        _row("guidance: VAE", vae, False, ""),
        *_fake(config, unet),
    ]


def _fake(config: Config, unet: UNet2DConditionModel) -> list[Row]:
    if config.guidance.kind != "dmd":
        return []
    rank = config.fake.lora_rank
    what = "a copy of the UNet" if rank is None else f"LoRA of rank {rank} on the UNet's attention"
    return [Row("fake score", f"{count_trained(unet, rank):,}", "yes", what)]


def _known_diffusion(config: Config) -> list[Row]:
    source = config.guidance.source
    if source not in UNETS:
        return [Row("guidance", "?", "no", f"{source}: {_GONE}")]
    with torch.device("meta"):
        unet, vae = make_unet(source), make_vae()
    where = f"not on this machine; will be fetched from {DIFFUSION[source].repositories[0]} or a mirror"
    rows = [_row("guidance: UNet", unet, False, f"{source}: {where}"), _row("guidance: VAE", vae, False, "")]
    return [*rows, *_fake(config, unet)]


def _row(part: str, network: nn.Module | None, trains: bool, source: str) -> Row:
    count = 0 if network is None else sum(p.numel() for p in network.parameters())
    return Row(part, f"{count:,}", "yes" if trains and count else "no", source)


def _stages(config: Config, processes: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("stage", "images", "steps", "guidance", "at a time")]
    batch = config.data.batch
    for stage in config.stages:
        kind = config.guidance.kind if stage.guidance else "none"
        parts = f"{batch // (processes * stage.accumulate) or '?'} x {stage.accumulate} x {processes} processes"
        rows.append((stage.name, f"{stage.images:,}", f"{stage.images // batch:,}", kind, parts))
    return rows


def _rest(config: Config, processes: int) -> str:
    d, t = config.data, config.trainer
    count = f"{d.count or MINIWORLD_FACES:,} faces" if d.kind == "miniworld" else d.path
    return "\n".join(
        [
            f"data      {d.kind}: {count}, batches of {d.batch}",
            f"runs on   {processes} processes, {t.precision} in the layers that tolerate less than float32",
            f"every     {t.log_every_images:,} images a log line, {t.sample_every_images:,} a sample sheet, "
            f"{t.save_every_images:,} a checkpoint",
            f"into      {config.folder}",
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

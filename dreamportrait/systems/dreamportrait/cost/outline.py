"""The networks of a configuration without storage: their shapes are real, their tensors are on the meta device.

Weights that are not on this machine are replaced by the published sizes: EG3D's FFHQ 512, Stable Diffusion 2.0-base,
and text of 1024 channels.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.architectures import UNETS, make_unet, make_vae
from dreamportrait.guidance.guides import DIFFUSION_KINDS
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.loading import empty_clip
from dreamportrait.weights.diffusion_sources import locate_diffusion

TEXT_WIDTH = 1024  # of ViT-H-14
ASSUMED_DIFFUSION = "sd-2.0-base"


@dataclass
class Outline:
    portrait: PortraitGenerator
    critic: Critic
    unet: UNet2DConditionModel | None  # None = no diffusion model guides
    vae: AutoencoderKL | AutoencoderTiny | None
    clip: nn.Module | None  # the whole CLIP of text.clip. None = unknown here
    assumed: list[str] = field(default_factory=list)  # what is not on this machine, and what stands in for it


def outline(config: Config) -> Outline:
    """Build the networks of a configuration on the meta device. Nothing is loaded."""
    assumed: list[str] = []
    lower: Any = {"precision": config.trainer.precision}
    try:
        settings, judge = build.network_configs(config)
    except (WeightsError, OSError):
        settings, judge = GeneratorConfig(**lower), DiscriminatorConfig(**lower)
        assumed.append(f"model.pretrained={config.model.pretrained} is not here: sizes of the released FFHQ 512")
    try:
        width = build.text_width(config)
    except (WeightsError, OSError):
        width = TEXT_WIDTH
        assumed.append(f"text features are not here: {width} channels")
    with torch.device("meta"):
        portrait = PortraitGenerator(TriPlaneGenerator(settings), build.conditioning_config(config, width))
        critic = Critic(DualDiscriminator(judge), width if config.loss.text_aware_discriminator else None)
    vae: AutoencoderKL | AutoencoderTiny | None
    unet, vae = _diffusion(config, assumed)
    if vae is not None and config.guidance.encoder is not None:
        vae = _small_encoder(config.guidance.encoder, assumed)
    # Filters are made on the CPU, wherever a network is.
    return Outline(portrait.to("meta"), critic.to("meta"), unet, vae, _clip(config), assumed)


def _diffusion(config: Config, assumed: list[str]) -> tuple[UNet2DConditionModel | None, AutoencoderKL | None]:
    if not (config.needs_guidance and config.guidance.kind in DIFFUSION_KINDS):
        return None, None
    source = config.guidance.source
    try:
        folder = locate_diffusion(source, offline=True)
    except (ValueError, OSError):
        name = source if source in UNETS else ASSUMED_DIFFUSION
        if name != source:
            assumed.append(f"guidance.source={source} is not here: sizes of {name}")
        with torch.device("meta"):
            return make_unet(name), make_vae()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        return unet, AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))


def _small_encoder(folder: str, assumed: list[str]) -> AutoencoderTiny:
    with torch.device("meta"):
        try:
            return AutoencoderTiny.from_config(AutoencoderTiny.load_config(folder, local_files_only=True))
        except (ValueError, OSError):
            assumed.append(f"guidance.encoder={folder} is not here: sizes of TAESD")
            return AutoencoderTiny()


def _clip(config: Config) -> nn.Module | None:
    try:
        clip: Any = empty_clip(config.text.clip)
    except (ValueError, OSError, RuntimeError, TypeError):
        return None
    for name in ("image_mean", "image_std"):  # open_clip sets them when it loads weights; values do not matter here
        if not hasattr(clip.visual, name):
            setattr(clip.visual, name, (0.5, 0.5, 0.5))
    network: nn.Module = clip
    return network


def moving(config: Config, made: Outline) -> int:
    """Return the number of weights that a training changes, which have moments of Adam."""
    portrait, m = made.portrait, config.model
    own = sum(trained(part) for part in (portrait.mapper, portrait.adapters) if part is not None)
    own += trained(portrait.generator, not m.freeze_generator)
    return own + trained(made.critic, not m.freeze_discriminator)


def parameters(network: nn.Module | None) -> int:
    return 0 if network is None else sum(p.numel() for p in network.parameters())


def trained(network: nn.Module, moves: bool = True) -> int:
    """Return the number of weights that a step changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad) if moves else 0

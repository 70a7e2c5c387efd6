"""A tiny text-to-3D model in a folder, as training writes it, with a CLIP next to it."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny_training import GENERATOR
from torch import nn
from toy_run import CLIP, write_clip

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.folder import TextSource, save_portrait
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator

WIDTH = CLIP["text_cfg"]["width"]


def write_portrait(folder: Path, text_width: int = WIDTH) -> Path:
    """Write a model with random text weights, so that every word changes its pictures. Return its folder."""
    clip = folder.with_name("CLIP")
    if not clip.exists():
        write_clip(clip)
    torch.manual_seed(0)
    generator = TriPlaneGenerator(replace(GENERATOR, camera_pivot=(0.0, 0.0, 0.0)))
    generator.backbone.mapping.w_avg.normal_()
    portrait = PortraitGenerator.equip(generator, ConditioningConfig(text_width=text_width, token_dim=8, heads=2))
    for parameter in portrait.listeners().parameters():
        nn.init.normal_(parameter)
    save_portrait(folder, portrait, None, TextSource(str(clip)), licence="of the tests", pretrained="none")
    return folder

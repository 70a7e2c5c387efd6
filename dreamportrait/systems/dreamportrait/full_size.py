"""Networks of the paper's sizes with random weights, to measure speed, memory and shapes without the real weights.

The sizes are those of EG3D's FFHQ 512 and of the text tower of Stable Diffusion 2.
"""

from typing import Any

import open_clip  # type: ignore[import-untyped]
from torch import nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.encoder import TextEncoder

NAME = "ViT-H-14"
VIT_H: dict[str, Any] = open_clip.get_model_config(NAME)
_VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}  # not used


def text_tower(sizes: dict[str, Any]) -> nn.Module:
    """Return a CLIP that has a text tower of these sizes and a minimal image tower."""
    clip: nn.Module = open_clip.CLIP(VIT_H["embed_dim"], _VISION, sizes)
    return clip.eval().requires_grad_(False)


def full_size_encoder(device: str = "cpu") -> TextEncoder:
    return TextEncoder(text_tower(VIT_H["text_cfg"]).to(device), open_clip.get_tokenizer(NAME))


def full_size_portrait(precision: Any = "float32") -> PortraitGenerator:
    generator = TriPlaneGenerator(GeneratorConfig(precision=precision))
    return (
        PortraitGenerator(generator, ConditioningConfig(text_width=VIT_H["text_cfg"]["width"]))
        .eval()
        .requires_grad_(False)
    )

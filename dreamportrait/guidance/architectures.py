"""Published network sizes of Stable Diffusion, to build a model without downloading it."""

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}
_V1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
# diffusers reads attention_head_dim as the number of heads.
_V2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
UNETS: dict[str, dict[str, Any]] = {"sd-2.0-base": _UNET | _V2, "sd-2.1-base": _UNET | _V2, "sd-1.5": _UNET | _V1}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


def make_unet(name: str) -> UNet2DConditionModel:
    """Build the UNet of a published model, with random weights."""
    if name not in UNETS:
        raise ValueError(f"{name!r}: published sizes are known only for {', '.join(UNETS)}")
    return UNet2DConditionModel(**UNETS[name])


def make_vae() -> AutoencoderKL:
    """Build the VAE, which has the same size in all published models, with random weights."""
    return AutoencoderKL(**VAE)

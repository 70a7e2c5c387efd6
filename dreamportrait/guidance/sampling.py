"""Sampling of pictures from text features: DDIM with classifier-free guidance."""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    scheduler: DDIMScheduler,
    words: Tensor,  # [N, L, C], features of the prompts
    null_words: Tensor,  # [1, L, C], features of the empty prompt
    *,
    guidance_scale: float,  # 1 = no guidance
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Return images [N, 3, R, R] in -1 .. 1. Image i does not depend on N."""
    latents = sample_latents(unet, scheduler, words, null_words, guidance_scale=guidance_scale, steps=steps, seed=seed)
    return decode(vae, latents).clamp(-1, 1)


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    words: Tensor,
    null_words: Tensor,
    *,
    guidance_scale: float,
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    if words.shape[1:] != null_words.shape[1:]:
        shapes = f"{list(words.shape)} and {list(null_words.shape)}"
        raise ValueError(
            f"words and null_words have shapes {shapes}: length and width must be equal; encode them alike"
        )
    size = unet.config["sample_size"]
    noise = torch.randn(
        len(words), unet.config["in_channels"], size, size, generator=torch.Generator().manual_seed(seed)
    )
    x = noise.to(words)  # [N, 4, R/4, R/4]
    both = torch.cat([null_words.expand_as(words), words])  # [2N, L, C]
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        if guidance_scale == 1:
            epsilon = unet(x, t, words).sample
        else:
            free, told = unet(torch.cat([x, x]), t, both).sample.chunk(2)
            epsilon = free + guidance_scale * (told - free)
        x = scheduler.step(epsilon, t, x, return_dict=False)[0]
    return x


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    return vae.decode(latents / vae.config["scaling_factor"]).sample  # [N, 3, R, R]

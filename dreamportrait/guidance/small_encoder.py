"""A small encoder in place of a VAE's: it gives the latents of pictures and, by its Jacobian, the guidance at pictures.

The backward pass of score distillation goes through the encoder. Stable Diffusion's has 34 million weights; TAESD's, in
diffusers an AutoencoderTiny, has 1.2 million. A folder of such a model (config.json and
diffusion_pytorch_model.safetensors, scaled as the UNet reads latents) is named by guidance.encoder:

    hf download madebyollin/taesd --include "*.json" "*.safetensors" --local-dir weights/taesd

An encoder whose latents are right may still have a wrong Jacobian, because it was trained for pictures and not for
gradients. `python eval/encoder.py` measures the cosine between the gradients of D-SDS by both encoders, and trains a
small one whose products of random directions with the Jacobian are those of the VAE, too.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn

from dreamportrait.core.files import new_folder
from dreamportrait.guidance.distillation import carrying, draw
from dreamportrait.guidance.guides import DiffusionGuide
from dreamportrait.guidance.stable_diffusion import StableDiffusion, reduction

FILES = ("config.json", "diffusion_pytorch_model.safetensors")
JACOBIAN_WEIGHT = 1.0


def make_small_encoder(prior: StableDiffusion, width: int) -> AutoencoderTiny:
    """Build an untrained encoder for the latents of a diffusion model. Its decoder is not used and minimal."""
    stages = reduction(prior.vae).bit_length()
    small = AutoencoderTiny(
        encoder_block_out_channels=(width,) * stages,
        num_encoder_blocks=(1, *(2,) * (stages - 1)),
        decoder_block_out_channels=(1,) * stages,
        num_decoder_blocks=(1,) * stages,
        latent_channels=prior.latent_shape[0],
    )
    return small.train()


def distil(
    small: AutoencoderTiny,
    prior: StableDiffusion,
    pictures: Iterator[Tensor],  # batches [N, 3, R, R] in -1 .. 1, at the prior's size
    steps: int,
    jacobian: float = JACOBIAN_WEIGHT,  # weight of the Jacobian's loss; 0 = learn latents alone
    lr: float = 1e-3,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a small encoder to give the latents of the VAE, and the same products with its Jacobian."""
    optimizer = torch.optim.Adam(small.encoder.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x = next(pictures).requires_grad_()
        wanted = prior.encode(x)  # [N, c, h, w]
        found = small.encode(x).latents
        loss = (found - wanted.detach()).square().mean() / wanted.detach().var()
        if jacobian:
            v = torch.randn_like(found)
            (teacher,) = torch.autograd.grad((wanted * v).sum(), x, retain_graph=True)
            (own,) = torch.autograd.grad((found * v).sum(), x, create_graph=True)
            loss = loss + jacobian * (own - teacher).square().mean() / teacher.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step, float(loss.detach()))


class Agreement(NamedTuple):
    """How far two encoders agree on pictures."""

    cosine: float  # mean cosine of the gradients of D-SDS at a picture
    length: float  # mean length of the small encoder's gradient, relative to the VAE's
    latents: float  # mean squared difference of the latents, relative to their variance


def agreement(
    guide: DiffusionGuide, small: AutoencoderTiny, images: Tensor, prompts: list[str], camera: Tensor
) -> Agreement:
    """Compare the gradients of a guidance at pictures by the VAE's encoder and by a small one.

    The noise, t and the UNet's prediction are those at the VAE's latents, so that only the way back differs.
    """
    prior = guide.prior
    x = images.detach().requires_grad_()  # [N, 3, R, R]
    latents, others = prior.encode(x), _encode(small, prior, x)
    words = guide.embed(prompts, camera).to(images.device)
    t, noise = draw(prior, len(images), guide.settings.t_min, guide.settings.t_max)
    g = guide.gradient(latents.detach(), t, noise, words)
    (a,), (b,) = (torch.autograd.grad(carrying(each, g), x) for each in (latents, others))
    a, b = a.flatten(1), b.flatten(1)
    ratio = b.norm(dim=1) / a.norm(dim=1)
    difference = (others - latents).square().mean() / latents.var()
    return Agreement(
        float(nn.functional.cosine_similarity(a, b).mean()), float(ratio.mean()), float(difference.detach())
    )


def _encode(small: AutoencoderTiny, prior: StableDiffusion, images: Tensor) -> Tensor:
    """Return the latents by the small encoder, at the size that the model reads."""
    size = prior.image_size
    if images.shape[2] != size:
        images = nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
    latents: Tensor = small.encode(images).latents
    return latents


def save_small_encoder(small: AutoencoderTiny, folder: Path, overwrite: bool = False) -> None:
    """Save a small encoder as diffusers does, to be named by guidance.encoder."""
    with new_folder(folder, overwrite, FILES) as staging:
        small.save_pretrained(staging)

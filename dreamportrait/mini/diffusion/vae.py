"""The mini VAE: pictures [N, 3, 64, 64] in -1 .. 1 <-> latents [N, 4, 16, 16]."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from numpy import ndarray as Array
from torch import Tensor, nn

from dreamportrait.core.machine import autocast
from dreamportrait.mini.diffusion.folder import save_vae
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

STEPS, BATCH, PEAK_LR = 8_000, 16, 2e-3
EMA_IMAGES = 4_000  # half-life
KL_WEIGHT = 1e-4  # per latent element; the posterior's deviation stays at a few hundredths of the signal's


def make_vae(channels: tuple[int, ...] = (16, 32, 48)) -> AutoencoderKL:
    """Build the VAE, with one normalisation group per layer.

    With more groups each is scaled separately and colours drift: 3 dB less after the same training time.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
    )
    with torch.no_grad():
        _convs(vae)[0].bias[4:] = -4.0  # otherwise noise exceeds the signal for the first minutes
    return vae


def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Return the posterior's mode, scaled for the UNet. Gradients flow through it."""
    return vae.encode(images).latent_dist.mode() * vae.config["scaling_factor"]  # [N, 4, R/4, R/4]


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: Array, batch: int = 100, flip: bool = False) -> Tensor:
    """Encode uint8 pictures [N, 3, R, R] to float16 latents [N, 4, R/4, R/4]. `flip` mirrors the pictures first."""
    parts = []
    for start in range(0, len(images), batch):
        x = to_signed(images[start : start + batch], vae.device)
        parts.append(encode(vae, x.flip(-1) if flip else x).half().cpu())
    return torch.cat(parts)


def to_signed(images: Array, device: torch.device | None = None) -> Tensor:
    """Convert uint8 pictures to floats in -1 .. 1."""
    return torch.from_numpy(np.array(images)).to(device).float() / 127.5 - 1


# Training.


def vae_loss(vae: AutoencoderKL, images: Tensor) -> dict[str, Tensor]:
    with autocast(images.device):
        posterior = DiagonalGaussianDistribution(vae.encode(images).latent_dist.parameters.float())
        made = vae.decode(posterior.sample()).sample.float()
    pixels = (made - images).abs().mean()
    edges = sum(((made.diff(dim=i) - images.diff(dim=i)).abs().mean() for i in (-1, -2)), images.new_zeros(()))
    areas = (F.avg_pool2d(made, 4) - F.avg_pool2d(images, 4)).abs().mean()  # keeps the mean colour of small areas right
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    total = pixels + 0.5 * edges + areas + KL_WEIGHT * kl
    return {"loss": total, "pixels": pixels, "edges": edges, "areas": areas, "kl": kl}


@torch.no_grad()
def fold_statistics(vae: AutoencoderKL, images: Array) -> None:
    """Scale the weights so that latents of these uint8 pictures have mean 0 and deviation 1 in every channel.

    Reconstructions do not change.
    """
    latents = encode_all(vae, images).float()
    mean = latents.mean((0, 2, 3)).to(vae.device)  # [4]
    std = latents.std((0, 2, 3)).to(vae.device)
    inward, outward = _convs(vae)
    n = len(mean)
    inward.weight[:n] /= std[:, None, None, None]
    inward.bias[:n] = (inward.bias[:n] - mean) / std
    inward.bias[n:] -= 2 * std.log()  # the log variance
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= std[:, None, None]  # [out, in, 1, 1]


def _convs(vae: AutoencoderKL) -> tuple[Any, Any]:
    """Return the 1x1 convolutions after the encoder and before the decoder. diffusers declares them optional."""
    return vae.quant_conv, vae.post_quant_conv


def train_vae(
    out: Path,  # the diffusion folder; the VAE is written to OUT/vae
    work: Path,
    world: World | StyledWorld,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    channels: tuple[int, ...] = (16, 32, 48),
    device: str = "cpu",
    seed: int = 0,
    start: AutoencoderKL | None = None,  # the VAE to continue from. None = random weights
    lr: float = PEAK_LR,
) -> None:
    torch.manual_seed(seed)
    vae = make_vae(channels) if start is None else start.requires_grad_(True).train()
    nn.Module.to(nn.Module.to(vae, device), memory_format=torch.channels_last)  # a step on a CPU takes a third less
    average = Ema(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.01)

    def step(index: int) -> dict[str, Tensor]:
        chosen = torch.randint(len(world), (batch,))
        losses = vae_loss(vae, to_signed(world.images[chosen.numpy()], vae.device))
        set_lr(optimizer, cosine(index, steps, lr))
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, min(half_life(batch, EMA_IMAGES), (index + 1) / (index + 10)))
        return losses

    fit(step, {"vae": vae, "average": average, "optimizer": optimizer}, steps, work, seed=seed, title="vae")
    trained = cast(AutoencoderKL, average.module.to(memory_format=torch.contiguous_format))
    fold_statistics(trained, world.images[:4096])
    save_vae(trained, out)

"""Tiny editors of pictures with random weights, and stand-ins that show what the networks are given."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import make_vae
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, with_picture

WIDTH, SIZE = 6, 16  # of words; of latents


def embed(prompts: list[str]) -> Tensor:  # [N, 3, WIDTH]
    """Return words that depend on the prompt alone."""
    return torch.stack(
        [torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(sum(p.encode()))) for p in prompts]
    )


def diffusion() -> StableDiffusion:
    """Return a tiny text-to-image model."""
    torch.manual_seed(0)
    unet, vae = make_unet(WIDTH, (8, 16)), make_vae((2, 4, 6))
    return StableDiffusion(unet, vae, make_scheduler().alphas_cumprod, "epsilon", embed)


def editor(fresh: bool = False) -> InstructPix2Pix:
    """Return a tiny editor, made of the text-to-image model. fresh: it ignores the picture as yet."""
    parent = diffusion()
    unet = with_picture(parent.unet)
    if not fresh:
        torch.manual_seed(1)
        nn.init.normal_(unet.conv_in.weight, std=0.1)
    return InstructPix2Pix(unet, parent.vae, parent.alphas_cumprod, "epsilon", embed)


class Network(nn.Module):
    """A stand-in for a network of diffusers. It keeps what it was called with."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.calls = config, []
        self.device, self.dtype = torch.device("cpu"), torch.float32


class StubUNet(Network):
    """A UNet whose output is a known number for each of: no picture, a picture, a picture with the wanted text."""

    def __init__(self, nothing: float = 0, seen: float = 0, told: float = 0) -> None:
        super().__init__({"in_channels": 8, "out_channels": 4, "sample_size": SIZE})
        self.values = nothing, seen, told

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Any:
        self.calls.append((x, t, words))
        pictured = x[:, 4:].abs().amax((1, 2, 3)) > 0
        wanted = words.mean((1, 2)) > 0
        nothing, seen, told = self.values
        value = torch.where(pictured, torch.where(wanted, told, seen), nothing)
        return SimpleNamespace(sample=value[:, None, None, None].expand(-1, 4, SIZE, SIZE).float())


class StubVAE(Network):
    """A VAE whose posterior's mean is 2 everywhere, and whose decoder shows the first three channels of latents."""

    def __init__(self) -> None:
        super().__init__({"latent_channels": 4, "scaling_factor": 0.18215, "block_out_channels": (1,)})

    def encode(self, images: Tensor) -> Any:
        self.calls.append(images)
        latents = torch.full((len(images), 4, SIZE, SIZE), 2.0)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=latents[:, :3])


def signed(prompts: list[str]) -> Tensor:  # [N, 3, WIDTH]
    """Return words of 1, or of -1 for prompts that start with "bad"."""
    return torch.stack([torch.full((3, WIDTH), -1.0 if p.startswith("bad") else 1.0) for p in prompts])


def stub_editor(unet: StubUNet) -> InstructPix2Pix:
    network: Any = unet
    vae: Any = StubVAE()
    return InstructPix2Pix(network, vae, make_scheduler().alphas_cumprod, "epsilon", signed)

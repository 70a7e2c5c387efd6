"""InstructPix2Pix: edits a picture as a sentence says (Brooks et al. 2022).

    editor = load_instruct_pix2pix("instruct-pix2pix", precision="float16", device="cuda")
    noise = editor.fixed_noise(seed=3)                           # one for all views of an identity
    editor.edit(views, Wording().instruct("a gold statue"), noise, Sampling()).images

The UNet reads eight channels: the noisy latents, and the latents of the picture to edit. The latter are the mean of the
VAE's posterior without the scaling factor; the former are scaled, also where sampling starts from the picture.

Three predictions guide a step, with s_I and s_T for image_scale and text_scale, I for the picture, t for the text and
t_n for the negative text, which takes the place of "no text":

    eps(z, 0, t_n) + s_I (eps(z, I, t_n) - eps(z, 0, t_n)) + s_T (eps(z, I, t) - eps(z, I, t_n))

The pipeline of diffusers cannot start midway, so the loop over the steps is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from dreamportrait.geometry.images import antialiased
from dreamportrait.guidance.prompts import Embed, make_embed
from dreamportrait.guidance.sampling import decode
from dreamportrait.guidance.stable_diffusion import (
    UNET_PRECISION,
    VAE_PRECISION,
    Precision,
    as_noise,
    load_part,
    reduction,
    run_unet,
    without_autocast,
)
from dreamportrait.systems.freestyle.prompts import Instruction
from dreamportrait.systems.freestyle.start import RULES, Rule, add, all_steps, remaining_steps
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.weights.diffusion import PREDICTIONS, read_layout
from dreamportrait.weights.diffusion_sources import locate_diffusion
from eg3d_ops._checks import check_number, check_shape, check_tensor


@dataclass(frozen=True)
class Sampling:
    """Settings of DDIM. The defaults are the paper's."""

    steps: int = 20
    start: float | None = 0.9  # tau, see start.py. None = start at pure noise, as InstructPix2Pix does by itself
    steps_after_start: Rule = "drop"
    image_scale: float = 1.5  # s_I
    text_scale: float = 20.0  # s_T

    def __post_init__(self) -> None:
        for name in ("image_scale", "text_scale"):
            if check_number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative; 1 = no guidance")
        if self.steps_after_start not in RULES:
            raise ValueError(f"steps_after_start={self.steps_after_start!r}: must be one of {', '.join(RULES)}")

    def schedule(self, count: int) -> list[int]:
        """Return the steps of a noise schedule of `count` that are sampled."""
        if self.start is None:
            return all_steps(count, self.steps)
        return remaining_steps(count, self.steps, self.start, self.steps_after_start)


class Edited(NamedTuple):
    images: Tensor  # [N, 3, R, R] in -1 .. 1
    saturated: Tensor  # [N] share of colours that were beyond -1 .. 1; large where text_scale is too large


class InstructPix2Pix:
    """An editor of pictures. It freezes the networks it is given and runs each in its own precision."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        alphas_cumprod: Tensor,  # [T]
        prediction: str,  # "epsilon" or "v_prediction"
        embed: Embed,
        *,
        final_alpha: float = 1.0,  # alpha-bar after the last step
        origin: str = "",  # the folder it was read from
    ) -> None:
        _check_networks(unet.config, vae.config, prediction)
        self.unet = unet.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.alphas_cumprod = alphas_cumprod.float().to(unet.device)
        self.prediction, self.embed, self.origin = prediction, embed, origin
        self.final_alpha = torch.tensor(float(final_alpha), device=unet.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.unet.config["sample_size"]
        return self.unet.config["out_channels"], size, size

    @property
    def image_size(self) -> int:
        """Size of the pictures that the model edits. Other pictures are resized to it and back."""
        return self.latent_shape[1] * reduction(self.vae)

    def fixed_noise(self, seed: int) -> Tensor:  # [1, c, h, w]
        """Draw the noise for all views of an identity. It is drawn on the CPU, so it is the same on every device."""
        return torch.randn(1, *self.latent_shape, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [N, 3, R, R] in -1 .. 1 -> [N, c, h, w] x 2
        """Return the latents of pictures: unscaled, as the UNet reads a picture, and scaled, as it reads noisy ones."""
        check_tensor("images", images, 4, "[N, 3, R, R]")
        if images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images {list(images.shape)}: must be [N, 3, R, R]; others would be distorted")
        x = images.float().to(self.vae.device)
        with without_autocast(x.device):
            if x.shape[2] != self.image_size:
                x = antialiased(x, self.image_size)
            latents = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mode().float()
        return latents, latents * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def predict(
        self,
        noisy: Tensor,  # [N, c, h, w]
        t: Tensor,  # [N]
        pictured: Tensor,  # [N, c, h, w] unscaled latents of the pictures
        words: Tensor,  # [N or 1, L, C]
        negative_words: Tensor,  # [N or 1, L, C]
        *,
        image_scale: float,
        text_scale: float,
    ) -> Tensor:  # [N, c, h, w], float32
        """Return the guided noise, from one pass of three samples for each picture."""
        n = len(noisy)
        check_shape("noisy", noisy, [n, *self.latent_shape], "[N, c, h, w] of the UNet")
        check_shape("pictured", pictured, noisy.shape, "as noisy")
        wanted, avoided = (x.expand(n, -1, -1) for x in (words, negative_words))
        inputs = torch.cat([noisy.repeat(3, 1, 1, 1), torch.cat([torch.zeros_like(pictured), pictured, pictured])], 1)
        out = run_unet(self.unet, inputs, t.repeat(3), torch.cat([avoided, avoided, wanted]))  # [3N, c, h, w]
        signal = self.alphas_cumprod[t].repeat(3)
        nothing, seen, told = as_noise(out, noisy.repeat(3, 1, 1, 1), signal, self.prediction).chunk(3)
        return three_way(nothing, seen, told, image_scale, text_scale)

    @torch.no_grad()
    def edit(self, images: Tensor, instruction: Instruction, noise: Tensor, sampling: Sampling) -> Edited:
        """Edit pictures [N, 3, R, R] in -1 .. 1. noise: [1 or N, c, h, w]; one for all keeps views alike.

        A picture's result does not depend on the other pictures, except for rounding.
        """
        return self.edit_each(images, [instruction], noise, sampling)

    @torch.no_grad()
    def edit_each(
        self,
        images: Tensor,  # [N, 3, R, R] in -1 .. 1
        instructions: Sequence[Instruction],  # N, or one for all
        noise: Tensor,  # [1 or N, c, h, w]
        sampling: Sampling,
    ) -> Edited:
        """Edit each picture as its own instruction says."""
        if len(instructions) not in (1, len(images)):
            raise ValueError(f"{len(instructions)} instructions for {len(images)} pictures: give one for all, or each")
        pictured, scaled = self.encode(images)
        noise = noise.to(scaled).expand_as(scaled)
        words, negative_words = (self.embed(list(texts)) for texts in zip(*instructions, strict=True))
        scales = {"image_scale": sampling.image_scale, "text_scale": sampling.text_scale}
        steps = sampling.schedule(len(self.alphas_cumprod))
        z = noise if sampling.start is None else add(scaled, noise, self.alphas_cumprod, steps[0])
        signals = [*self.alphas_cumprod[steps], self.final_alpha]
        for step, (signal, after) in zip(steps, pairwise(signals), strict=True):
            t = torch.full((len(z),), step, device=z.device)
            z = ddim_step(z, self.predict(z, t, pictured, words, negative_words, **scales), signal, after)
        return self._decoded(z, images.shape[2])

    def _decoded(self, latents: Tensor, size: int) -> Edited:
        with without_autocast(latents.device):
            images = decode(self.vae, latents.to(self.vae.dtype)).float()
        saturated = (images.abs() > 1).float().mean((1, 2, 3))
        if images.shape[2] != size:
            images = antialiased(images, size)
        return Edited(images.clamp(-1, 1), saturated)


# Guidance by picture and text, InstructPix2Pix eq. 3, with the negative text in place of no text.
def three_way(nothing: Tensor, seen: Tensor, told: Tensor, image_scale: float, text_scale: float) -> Tensor:
    """Combine the predictions eps(z, 0, t_n), eps(z, I, t_n) and eps(z, I, t)."""
    return nothing + image_scale * (seen - nothing) + text_scale * (told - seen)


# DDIM without noise, Song et al. 2021, eq. 12.
def ddim_step(z: Tensor, noise: Tensor, signal: Tensor, after: Tensor) -> Tensor:  # [N, c, h, w] x 2, [] x 2
    """Return the latents at the next step, whose alpha-bar is `after`."""
    clean = (z - (1 - signal).sqrt() * noise) / signal.sqrt()
    return after.sqrt() * clean + (1 - after).sqrt() * noise


def with_picture(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a copy of a text-to-image UNet that also reads a picture. The new weights are zero."""
    channels = unet.config["in_channels"]
    made = cast(UNet2DConditionModel, UNet2DConditionModel.from_config({**unet.config, "in_channels": 2 * channels}))
    weights = dict(unet.state_dict())
    first = weights["conv_in.weight"]  # [C, c, 3, 3]
    weights["conv_in.weight"] = torch.cat([first, torch.zeros_like(first)], 1)
    made.load_state_dict(weights)
    return made


def load_instruct_pix2pix(
    source: str,
    *,
    offline: bool = False,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    text: TextEncoder | None = None,
) -> InstructPix2Pix:
    """Load an editor: "instruct-pix2pix", a hub repository or a folder with the layout of diffusers.

    offline: do not use the network. text: the text encoder, if the folder names one; None = load it.
    """
    if precision not in UNET_PRECISION:
        raise ValueError(f"precision={precision!r}: must be one of {', '.join(UNET_PRECISION)}")
    layout, device = read_layout(locate_diffusion(source, offline)), torch.device(device)
    unet = cast(UNet2DConditionModel, load_part(UNet2DConditionModel, layout.folder, "unet", layout.variants["unet"]))
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, layout.folder, "vae", layout.variants["vae"]))
    scheduler = DDIMScheduler.from_pretrained(layout.folder, subfolder="scheduler", local_files_only=True)
    return InstructPix2Pix(
        cast(Any, nn.Module.to(unet, device, UNET_PRECISION[precision])),
        cast(Any, nn.Module.to(vae, device, VAE_PRECISION[precision])),
        scheduler.alphas_cumprod,
        layout.prediction,
        make_embed(layout, text, UNET_PRECISION[precision], device),
        final_alpha=float(scheduler.final_alpha_cumprod),
        origin=str(layout.folder),
    )


def _check_networks(unet: Any, vae: Any, prediction: str) -> None:
    """Raise ValueError with all problems unless the networks form an editor of pictures."""
    channels, problems = vae["latent_channels"], []
    if (found := (unet["in_channels"], unet["out_channels"])) != (2 * channels, channels):
        problems.append(
            f"the UNet has {found[0]} channels in and {found[1]} out; an editor of pictures has {2 * channels} in "
            f"(noisy latents and those of the picture) and {channels} out: name one, such as instruct-pix2pix"
        )
    if extra := [key for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(key)]:
        problems.append(f"the UNet needs more than text ({', '.join(extra)}); models like SD XL are not supported")
    if shifts := [key for key in ("shift_factor", "latents_mean", "latents_std") if vae.get(key)]:
        problems.append(f"the VAE shifts its latents ({', '.join(shifts)}), which is not supported")
    if not isinstance(unet["sample_size"], int):
        problems.append(f"the UNet's sample_size is {unet['sample_size']!r}, must be one whole number")
    if prediction not in PREDICTIONS:
        problems.append(f"prediction={prediction!r}: must be one of {', '.join(PREDICTIONS)}")
    if problems:
        raise ValueError("; ".join(problems))

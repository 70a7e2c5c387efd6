"""A latent diffusion model for the losses: images to latents, prompts to words, noisy latents to noise.

    prior = load_stable_diffusion("sd-2.0-base", precision="bfloat16", device="cuda", checkpoint=True)
    words, null_words = prior.embed(prompts), prior.embed([""])
    t, noise = draw(prior, len(images), 0.02, 0.98)
    d_sds_loss(prior, images, words, null_words, t, noise, scale=10, weighting="sigma_squared", rescale=1).backward()

A guidance scale s always means null + s * (text - null): 0 = the prompt is ignored, 1 = no guidance.

The model is frozen. It is not an nn.Module, so that it is not saved in the checkpoints of a module that holds it; move
it between devices with `to`.

Half precision. The UNet only runs forwards, and any of float32, bfloat16 and float16 works. The VAE's encoder also runs
backwards, where float16 overflows and gives NaN gradients. It is therefore excluded from autocast and runs in bfloat16
if the UNet does, and in float32 otherwise.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_call

from dreamportrait.guidance.prompts import Embed, check_loaded, make_embed
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.weights.diffusion import PREDICTIONS, LayoutError, read_layout
from dreamportrait.weights.diffusion_sources import locate_diffusion
from eg3d_ops._checks import check_number, check_shape, check_tensor

Precision = Literal["float32", "bfloat16", "float16"]
UNET_PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
VAE_PRECISION = {**UNET_PRECISION, "float16": torch.float32}


class StableDiffusion:
    """A diffusion model. It freezes the networks it is given and runs each in its own precision."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL | AutoencoderTiny,
        alphas_cumprod: Tensor,  # [T]
        prediction: str,  # "epsilon" or "v_prediction"
        embed: Embed,
        *,
        checkpoint: bool = False,  # recompute the encoder, block by block, in the backward pass
        origin: str = "",  # the folder it was read from
    ) -> None:
        _check_networks(unet.config, vae.config, prediction)
        if next(vae.parameters()).dtype == torch.float16:
            raise ValueError("the VAE is in float16, whose gradients overflow; give it in float32 or bfloat16")
        self.unet = unet.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.alphas_cumprod = alphas_cumprod.float().to(unet.device)
        self.prediction, self.embed, self.origin = prediction, embed, origin
        if checkpoint:
            _recompute(vae.encoder)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.unet.config["sample_size"]
        return self.unet.config["in_channels"], size, size

    @property
    def image_size(self) -> int:
        """Size of the pictures that the model was trained on. Other pictures are resized to it."""
        return self.latent_shape[1] * reduction(self.vae)

    def to(self, device: torch.device | str) -> "StableDiffusion":
        """Move the networks and the schedule. The text encoder stays on its device."""
        for network in (self.unet, self.vae):
            nn.Module.to(network, device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def encode(self, images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> [N, c, h, w]
        """Return the mean of the posterior, scaled for the UNet, in float32. Gradients flow to the images."""
        check_tensor("images", images, 4, "[N, 3, R, R]")
        if images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images {list(images.shape)}: must be [N, 3, R, R]; others would be distorted")
        size = self.image_size
        with without_autocast(images.device):
            x = images.float()
            if images.shape[2] != size:
                x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
            encoded = self.vae.encode(x.to(self.vae.dtype))
            latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
            scaled: Tensor = latents.float() * self.vae.config["scaling_factor"]
        return scaled

    @torch.no_grad()
    def predict(
        self,
        noisy: Tensor,  # [N, c, h, w]
        t: Tensor,  # [N]
        words: Tensor,  # [N, L, C]
        null_words: Tensor,  # [1, L, C] or [N, L, C]
        guidance_scale: float,
    ) -> Tensor:  # [N, c, h, w], float32
        """Return the predicted noise: null + guidance_scale * (text - null)."""
        scale = check_number("guidance_scale", guidance_scale)
        null = self._check_inputs(noisy, t, words, null_words)
        if scale == 1:
            out = run_unet(self.unet, noisy, t, words)
        elif scale == 0:
            out = run_unet(self.unet, noisy, t, null)
        else:
            free, told = run_unet(self.unet, *_twice(noisy, t), torch.cat([null, words])).chunk(2)
            out = free + scale * (told - free)
        return self.noise_from(out, noisy, t)

    @torch.no_grad()
    def predict_both(
        self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor
    ) -> tuple[Tensor, Tensor]:  # [N, c, h, w] each
        """Return the noise predicted with the prompts and the noise predicted without text, from one pass."""
        null = self._check_inputs(noisy, t, words, null_words)
        out = run_unet(self.unet, *_twice(noisy, t), torch.cat([null, words]))  # [2N, c, h, w]
        free, told = self.noise_from(out, *_twice(noisy, t)).chunk(2)
        return told, free

    def noise_from(self, out: Tensor, noisy: Tensor, t: Tensor) -> Tensor:  # [N, c, h, w] x 2, [N] -> [N, c, h, w]
        """Return the noise that an output of the UNet stands for."""
        return as_noise(out, noisy, self.alphas_cumprod[t], self.prediction)

    def _check_inputs(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor) -> Tensor:
        """Raise ValueError unless the shapes fit. Return null_words for each sample."""
        n = len(noisy)
        check_shape("noisy", noisy, [n, *self.latent_shape], "[N, c, h, w] of the UNet")
        check_shape("t", t, [n], "one step for each sample")
        width = self.unet.config["cross_attention_dim"]
        check_shape("words", words, [n, words.shape[1], width], "[N, L, C] as the UNet reads them")
        null = null_words.expand(n, *null_words.shape[1:])
        check_shape("null_words", null, words.shape, "as words; embed both alike")
        return null


def run_unet(unet: UNet2DConditionModel, noisy: Tensor, t: Tensor, words: Tensor) -> Tensor:  # [N, c, h, w], float32
    """Run a UNet in the precision of its weights."""
    with without_autocast(noisy.device):
        out: Tensor = unet(noisy.to(unet.dtype), t, words.to(noisy.device, unet.dtype)).sample
    return out.float()


def as_noise(out: Tensor, noisy: Tensor, signal: Tensor, prediction: str) -> Tensor:
    """Return the noise [N, c, h, w] that an output of a UNet stands for. signal: alpha-bar of each sample [N]."""
    if prediction == "epsilon":
        return out
    a = signal[:, None, None, None]
    return a.sqrt() * out + (1 - a).sqrt() * noisy.float()  # v = sqrt(a) eps - sqrt(1 - a) x


def _twice(noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return noisy.repeat(2, 1, 1, 1), t.repeat(2)


def load_stable_diffusion(
    source: str,
    *,
    offline: bool = False,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    checkpoint: bool = False,
    text: TextEncoder | None = None,
    encoder: str | Path | None = None,
) -> StableDiffusion:
    """Load a diffusion model.

    source: as dreamportrait.weights.diffusion_sources.locate_diffusion accepts it. offline: do not use the network.
    text: the text encoder, if the folder names one, as the miniature model does. None = load it.
    encoder: a folder with a small encoder, which is used in place of the VAE's.
    """
    if precision not in UNET_PRECISION:
        raise ValueError(f"precision={precision!r}: must be one of {', '.join(UNET_PRECISION)}")
    layout = read_layout(locate_diffusion(source, offline))
    device = torch.device(device)
    unet = cast(UNet2DConditionModel, load_part(UNet2DConditionModel, layout.folder, "unet", layout.variants["unet"]))
    if encoder is None:
        vae: Any = load_part(AutoencoderKL, layout.folder, "vae", layout.variants["vae"])
    else:
        vae = load_part(AutoencoderTiny, Path(encoder), "", None)
    scheduler = DDIMScheduler.from_pretrained(layout.folder, subfolder="scheduler", local_files_only=True)
    return StableDiffusion(
        nn.Module.to(unet, device, UNET_PRECISION[precision]),
        nn.Module.to(vae, device, VAE_PRECISION[precision]),
        scheduler.alphas_cumprod,
        layout.prediction,
        make_embed(layout, text, UNET_PRECISION[precision], device),
        checkpoint=checkpoint,
        origin=str(layout.folder),
    )


def reduction(vae: AutoencoderKL | AutoencoderTiny) -> int:
    """Return how many pixels of a picture, in each direction, are one of its latent."""
    kind = "encoder_block_out_channels" if isinstance(vae, AutoencoderTiny) else "block_out_channels"
    return 2 ** (len(vae.config[kind]) - 1)


def load_part(kind: Any, folder: Path, part: str, variant: str | None) -> nn.Module:
    """Load one network of a diffusers folder. Raise LayoutError if weights are missing or do not fit."""
    try:
        network, info = kind.from_pretrained(
            folder,
            subfolder=part,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError) as error:
        raise LayoutError(f"{folder}/{part} cannot be loaded: {error}") from None
    check_loaded(info, f"{folder}/{part}")
    return cast(nn.Module, network)


def _check_networks(unet: Any, vae: Any, prediction: str) -> None:
    """Raise ValueError with all problems unless the networks form a plain text-to-image model."""
    channels, size, problems = vae["latent_channels"], unet["sample_size"], []
    if (found := (unet["in_channels"], unet["out_channels"])) != (channels, channels):
        problems.append(
            f"the UNet has {found[0]} channels in and {found[1]} out, the VAE's latents {channels}; "
            "models for inpainting or editing are not supported"
        )
    if extra := [key for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(key)]:
        problems.append(f"the UNet needs more than text ({', '.join(extra)}); models like SD XL are not supported")
    if shifts := [key for key in ("shift_factor", "latents_mean", "latents_std") if vae.get(key)]:
        problems.append(f"the VAE shifts its latents ({', '.join(shifts)}), which is not supported")
    if not isinstance(size, int):
        problems.append(f"the UNet's sample_size is {size!r}, must be one whole number")
    if prediction not in PREDICTIONS:
        problems.append(f"prediction={prediction!r}: must be one of {', '.join(PREDICTIONS)}")
    if problems:
        raise ValueError("; ".join(problems))


def _recompute(encoder: nn.Module) -> None:
    """Recompute each residual block separately in the backward pass.

    The switch of diffusers recomputes several blocks at a time, which halves the gain.
    """
    for block in encoder.modules():
        if isinstance(block, ResnetBlock2D):
            run = partial(checkpoint_call, block.forward, use_reentrant=False, preserve_rng_state=False)
            setattr(block, "forward", run)  # noqa: B010


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which networks run in the precision of their weights."""
    if device.type == "meta":  # shapes alone; autocast does not know it
        return nullcontext()
    return torch.autocast(device.type, enabled=False)

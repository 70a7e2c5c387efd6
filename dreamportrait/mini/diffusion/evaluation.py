"""Evaluation of the mini VAE and UNet: retrieval by a judge CLIP, signal-to-noise ratio, and sheets of pictures."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image, ImageDraw
from torch import Tensor

from dreamportrait.export.sheets import enlarged, save_sheet
from dreamportrait.geometry.images import to_bytes
from dreamportrait.guidance.sampling import decode, sample
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.mini.diffusion.unet import Embed
from dreamportrait.mini.diffusion.vae import encode, to_signed
from dreamportrait.miniworld.world import World
from dreamportrait.text.clip_scorer import ClipScorer

CANDIDATES = 100


@dataclass(frozen=True)
class Retrieval:
    """Shares of queries for which a judge finds the right one of 100."""

    caption_to_image: float
    image_to_caption: float


@dataclass(frozen=True)
class VaeScores:
    psnr: float  # dB, the mean over pictures
    real: Retrieval
    reconstructed: Retrieval


def score_vae(vae: AutoencoderKL, world: World, scorer: ClipScorer, count: int = 1000) -> VaeScores:
    """Score the VAE on the first `count` pictures of a world that training did not see."""
    images = to_signed(world.images[:count])
    made = reconstruct(vae, images)
    captions = [world.evaluation_caption(i) for i in range(len(images))]
    scores = (retrieval(scorer, pictures, captions) for pictures in (images, made))
    return VaeScores(psnr(made, images), *scores)


def score_samples(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    scheduler: DDIMScheduler,
    embed: Embed,
    world: World,
    scorer: ClipScorer,
    *,
    guidance_scale: float,
    count: int = 200,
    steps: int = 20,
    seed: int = 0,
) -> Retrieval:
    """Sample pictures for the first `count` evaluation captions and return the judge's retrieval scores."""
    captions = [world.evaluation_caption(i) for i in range(min(count, len(world)))]
    made = sample_captions(unet, vae, scheduler, embed, captions, guidance_scale=guidance_scale, steps=steps, seed=seed)
    return retrieval(scorer, made, captions)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor, batch: int = 100) -> Tensor:
    parts = [decode(vae, encode(vae, part.to(vae.device))) for part in images.split(batch)]
    return torch.cat(parts).clamp(-1, 1).to(images.device)


@torch.no_grad()
def sample_captions(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    scheduler: DDIMScheduler,
    embed: Embed,
    captions: list[str],
    *,
    guidance_scale: float,
    steps: int = 20,
    seed: int = 0,
    batch: int = 100,
) -> Tensor:
    """Return images [N, 3, R, R], one per caption. Batch b is drawn with seed + b."""
    null = embed([""]).to(unet.device)
    parts = []
    for start in range(0, len(captions), batch):
        words = embed(captions[start : start + batch]).to(unet.device)
        made = sample(
            *(unet, vae, scheduler, words, null),
            guidance_scale=guidance_scale,
            steps=steps,
            seed=seed + start // batch,
        )
        parts.append(made.cpu())
    return torch.cat(parts)


@torch.no_grad()
def retrieval(scorer: ClipScorer, images: Tensor, captions: list[str]) -> Retrieval:
    """Return the retrieval scores of at least 100 pictures [N, 3, R, R] with their captions."""
    seen, read = scorer.image_features(images), scorer.text_features(captions)
    found, named = r_precision(read, seen, CANDIDATES), r_precision(seen, read, CANDIDATES)
    return Retrieval(round(found.value, 4), round(named.value, 4))


def psnr(made: Tensor, real: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in dB of pictures in -1 .. 1."""
    error = ((made - real) / 2).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float(-10 * error.log10().mean())


# Sheets.


def reconstruction_sheet(vae: AutoencoderKL, world: World, path: Path, columns: int = 10, pairs: int = 4) -> None:
    """Save rows of real pictures, each with a row of their reconstructions below."""
    real = to_signed(world.images[: columns * pairs])
    made = reconstruct(vae, real)
    rows = [part for pair in zip(real.split(columns), made.split(columns), strict=True) for part in pair]
    save_sheet(rows, path, scale=2)


def sample_sheet(images: Tensor, captions: list[str], path: Path, columns: int = 4, scale: int = 2) -> None:
    """Save the pictures with their captions below them."""
    width, text_height = 64 * scale * 2, 52
    height = 64 * scale + text_height
    sheet = Image.new("RGB", (width * columns, height * -(-len(captions) // columns)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, caption) in enumerate(zip(to_bytes(images), captions, strict=True)):
        x, y = i % columns * width, i // columns * height
        picture = enlarged(Image.fromarray(pixels), 64 * scale)
        sheet.paste(picture, (x + (width - picture.width) // 2, y))
        draw.multiline_text((x + 4, y + picture.height + 2), _wrapped(caption, 40), "black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)[:4])

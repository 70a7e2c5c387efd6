"""VAE and UNet of styled heads: those of mini/diffusion, tuned on styled heads from all sides, with words of clip-s.

Two styles stay out of it, for systems that learn styles a text-to-image model does not know.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from dreamportrait.mini.diffusion import unet, vae
from dreamportrait.mini.diffusion.folder import load_diffusion, load_vae
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.text import compact_clip
from dreamportrait.text.encoder import TextEncoder

UNSEEN = ("clay figure", "clown")
TEXT = "mini/clip-s"
VAE_STEPS, VAE_LR = 1_500, 1e-3
UNET_STEPS, UNET_LR = 200, 1e-3
UNET_HEADS, UNET_CAPTIONS = 3_000, 2  # heads that are encoded for the UNet; captions of each


def seen_heads(world: StyledWorld, most: int | None = None) -> StyledWorld:
    """Return the heads whose style the models may see. most: the first so many. None = all."""
    unseen = [NAMES.index(name) for name in UNSEEN]
    kept = np.flatnonzero(~np.isin(world.looks[:, 0], unseen))[:most]
    names = ("images", "depth", "codes", "cameras", "looks", "yaws", "blurs")
    return replace(world, **{name: getattr(world, name)[kept] for name in names})


def tune_vae(
    start: Path,  # a folder of diffusers
    out: Path,
    work: Path,
    world: StyledWorld,
    *,
    steps: int = VAE_STEPS,
    batch: int = vae.BATCH,
    device: str = "cpu",
) -> None:
    """Tune the VAE of a folder and write it to OUT/vae."""
    vae.train_vae(
        out,
        work,
        seen_heads(world),
        steps=steps,
        batch=batch,
        device=device,
        seed=9,
        start=load_vae(start),
        lr=VAE_LR,
    )


def tune_unet(
    start: Path,  # a folder of diffusers
    coder: Path,  # the folder of the tuned VAE
    clip: Path,  # the folder of clip-s
    out: Path,
    work: Path,
    world: StyledWorld,
    *,
    steps: int = UNET_STEPS,
    batch: int = unet.BATCH,
    device: str = "cpu",
) -> None:
    """Tune the UNet of a folder to latents of another VAE and words of another CLIP, and write OUT."""
    shutil.copytree(coder / "vae", out / "vae")
    unet.train_unet(
        out,
        work,
        seen_heads(world, UNET_HEADS),
        words_of(clip),
        steps=steps,
        batch=batch,
        device=device,
        seed=10,
        start=load_diffusion(start)[0],
        lr=UNET_LR,
        mirrored=False,  # captions say left and right
        captions=UNET_CAPTIONS,
        text=TEXT,
    )


def words_of(clip: Path) -> unet.Embed:
    """Return the function that turns prompts into the words that UNets read."""
    encoder = TextEncoder(compact_clip.load_text(clip), compact_clip.tokenizer())
    return lambda prompts: encoder.encode(prompts, shorten=False).words

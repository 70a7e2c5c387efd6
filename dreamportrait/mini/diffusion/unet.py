"""The mini UNet: it predicts the noise in the VAE's latents, conditioned by the word features of mini CLIP A."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy import ndarray as Array
from torch import Tensor, nn

from dreamportrait.core.machine import autocast
from dreamportrait.mini.diffusion.folder import TEXT, load_vae, make_scheduler, save_unet
from dreamportrait.mini.diffusion.vae import encode_all
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

STEPS, BATCH, PEAK_LR = 5_000, 64, 2e-3
EMA_IMAGES = 20_000  # half-life
CAPTIONS = 4  # per face; their word features are cached on disk, 15 kB each
NO_TEXT = 0.1  # share of samples whose prompt is empty, for classifier-free guidance

Embed = Callable[[list[str]], Tensor]  # prompts -> word features [B, L, C], L fixed


def make_unet(width: int, channels: tuple[int, ...] = (32, 64)) -> UNet2DConditionModel:
    """Build the UNet for text features of this width. Every level except the first has cross-attention to the text."""
    deeper = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * deeper),
        up_block_types=(*("CrossAttnUpBlock2D",) * deeper, "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=width,
        attention_head_dim=4,  # in diffusers this is the number of heads
    )


def unet_loss(unet: UNet2DConditionModel, latents: Tensor, words: Tensor, signal: Tensor) -> Tensor:
    """Return the mean squared error of the predicted noise. `signal` is alpha-bar at every step of the schedule."""
    t = torch.randint(len(signal), (len(latents),)).to(latents.device)
    noise = torch.randn(latents.shape).to(latents.device)
    a = signal[t][:, None, None, None]
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    with autocast(latents.device):
        made = unet(noisy, t, words).sample
    return F.mse_loss(made.float(), noise)


class Examples:
    """Training data of the UNet: latents of every face and of its mirror image, and word features of its captions.

    Captions of plain faces never mention left or right, so they also fit the mirror image.
    """

    def __init__(self, latents: Array, words: Array, null: Tensor) -> None:
        self.latents = latents  # float16 [2 or 1, N, 4, R/4, R/4]
        self.words = words  # float16 [N, K, L, C]
        self.null = null  # [1, L, C], word features of the empty prompt

    @classmethod
    def of(
        cls,
        world: World | StyledWorld,
        folder: Path,
        embed: Embed,
        cache: Path,
        device: str = "cpu",
        mirrored: bool = True,  # whether mirror images are encoded too
        captions: int = CAPTIONS,  # per face
    ) -> "Examples":
        """Encode faces with the VAE in `folder` and captions with `embed`, or read them from `cache`."""
        sample = embed([world.captions(0)[0], ""]).cpu()
        vae = load_vae(folder)
        nn.Module.to(vae, device)

        def encode_faces() -> Array:
            flips = (False, True) if mirrored else (False,)
            return torch.stack([encode_all(vae, world.images, flip=flip) for flip in flips]).numpy()

        def encode_captions() -> Array:
            words = np.empty((len(world), captions, *sample.shape[1:]), np.float16)
            for i, row in enumerate(words):
                row[:] = embed(world.captions(i)[:captions]).cpu().numpy()
            return words

        # The file names hold a digest of the encoded last face and first caption. It changes with weights and faces.
        last = encode_all(vae, world.images[-1:]).numpy()
        latents = cached(cache / f"latents-{len(world)}-{digest(last)}.npy", encode_faces)
        words = cached(cache / f"words-{len(world)}x{captions}-{digest(last, sample.numpy())}.npy", encode_captions)
        return cls(latents, words, sample[1:])

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Draw latents [B, 4, R/4, R/4] and word features [B, L, C]. A tenth of the prompts are empty."""
        n, k = self.words.shape[:2]
        faces, mirrored, chosen = (torch.randint(limit, (batch,)).numpy() for limit in (n, len(self.latents), k))
        words = torch.from_numpy(self.words[faces, chosen]).float()
        untold = (torch.rand(batch) < NO_TEXT)[:, None, None]
        return torch.from_numpy(self.latents[mirrored, faces]).float(), torch.where(untold, self.null, words)


def cached(path: Path, make: Callable[[], Array]) -> Array:
    """Return the array in the file `path`, memory-mapped. If it is missing, write make() to it first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished.npy")
        np.save(unfinished, make())
        unfinished.replace(path)
    return np.load(path, mmap_mode="r")


def digest(*arrays: Array) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:12]


def train_unet(
    out: Path,  # the diffusion folder, which already holds OUT/vae
    work: Path,
    world: World | StyledWorld,
    embed: Embed,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    channels: tuple[int, ...] = (32, 64),
    device: str = "cpu",
    seed: int = 0,
    start: UNet2DConditionModel | None = None,  # the UNet to continue from. None = random weights
    lr: float = PEAK_LR,
    mirrored: bool = True,  # whether it also learns mirror images
    captions: int = CAPTIONS,  # per face
    text: str = TEXT,  # the model whose words `embed` returns
) -> None:
    torch.manual_seed(seed)
    unet = make_unet(embed([""]).shape[-1], channels) if start is None else start
    examples = Examples.of(world, out, embed, work, device, mirrored, captions)
    signal = make_scheduler().alphas_cumprod.to(device)

    def loss() -> Tensor:
        latents, words = examples.draw(batch)
        return unet_loss(unet, latents.to(device), words.to(device), signal)

    save_unet(fit_unet(unet, loss, work, steps=steps, batch=batch, lr=lr, device=device, seed=seed), out, text)


def fit_unet(
    unet: UNet2DConditionModel,
    loss: Callable[[], Tensor],  # of a new batch
    work: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    device: str,
    seed: int,
    title: str = "unet",
) -> UNet2DConditionModel:
    """Train a UNet and return the running average of its weights. A stopped run continues from `work`."""
    # Channels last: a step on a CPU takes a sixth less.
    nn.Module.to(nn.Module.to(unet, device), memory_format=torch.channels_last)
    unet.requires_grad_(True).train()
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused one's bfloat16 backward takes half of the step
    average = Ema(unet)
    optimizer = torch.optim.AdamW(unet.parameters(), lr, weight_decay=0.01)

    def step(index: int) -> dict[str, Tensor]:
        found = loss()
        set_lr(optimizer, cosine(index, steps, lr))
        optimizer.zero_grad(set_to_none=True)
        found.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.update(unet, min(half_life(batch, EMA_IMAGES), (index + 1) / (index + 10)))
        return {"loss": found}

    fit(step, {"unet": unet, "average": average, "optimizer": optimizer}, steps, work, seed=seed, title=title)
    return cast(UNet2DConditionModel, average.module.to(memory_format=torch.contiguous_format))

"""A small InstructPix2Pix for styled heads: the UNet of mini/diffusion, taught with exact triples.

Its UNet also reads the latents of the picture before the edit, and learns to predict those after it. Instructions name
only what changes, so it learns to keep the rest. It learns all twelve styles.

It differs from the published one in two ways, without which the words of small attributes are hardly heard:
- It predicts v, not the noise. Sampling starts at steps where the noise hides the picture, and decides there what the
  edit shows; the error of the noise is small there, whatever the picture is.
- Half of its loss counts positions as the edit changes them: glasses are few of them.
"""

import shutil
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.core.machine import autocast
from dreamportrait.mini.diffusion.folder import load_diffusion, load_vae, make_scheduler, save_unet
from dreamportrait.mini.diffusion.styled import TEXT, words_of
from dreamportrait.mini.diffusion.unet import Embed, cached, digest, fit_unet
from dreamportrait.mini.diffusion.vae import encode_all
from dreamportrait.miniworld.edit_pool import EditPool
from dreamportrait.systems.freestyle.instruct import with_picture

STEPS, BATCH, LR, SEED = 18_000, 32, 1e-3, 11
WITHOUT = 0.05  # share of samples without text, as large a one without picture, and as large a one without both
FOCUS, MOST = 0.5, 20.0  # share of the loss that follows the change; most that a position counts in it
PREDICTION = "v_prediction"


def train(
    start: Path,  # a folder of diffusers: the UNet it starts from
    coder: Path,  # the folder of the VAE of styled heads
    clip: Path,  # the folder of clip-s
    out: Path,
    work: Path,
    pool: EditPool,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Train the editor and write it to `out` with the layout of diffusers. A stopped run continues from `work`."""
    torch.manual_seed(SEED)
    unet = with_picture(load_diffusion(start)[0])
    shutil.copytree(coder / "vae", out / "vae")
    triples = Triples.of(pool, out, words_of(clip), work)
    signal = make_scheduler().alphas_cumprod.to(device)

    def loss() -> Tensor:
        before, after, words = (x.to(device) for x in triples.draw(batch))
        return editing_loss(unet, before, after, words, signal)

    made = fit_unet(unet, loss, work, steps=steps, batch=batch, lr=LR, device=device, seed=SEED, title="ip2p")
    save_unet(made, out, TEXT, PREDICTION)


def editing_loss(
    unet: UNet2DConditionModel,
    before: Tensor,  # [B, c, h, w] latents of the picture; 0 = without picture
    after: Tensor,  # [B, c, h, w] latents of the edited picture
    words: Tensor,  # [B, L, C]
    signal: Tensor,  # [T] alpha-bar at every step of the schedule
) -> Tensor:
    """Return the mean squared error of the predicted v in the latents of edited pictures, weighted by focus()."""
    t = torch.randint(len(signal), (len(after),)).to(after.device)
    noise = torch.randn(after.shape).to(after.device)
    a = signal[t][:, None, None, None]
    noisy = a.sqrt() * after + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * after
    with autocast(after.device):
        made = unet(torch.cat([noisy, before], 1), t, words).sample
    return (focus(before, after) * (made.float() - v).square()).mean()


def focus(before: Tensor, after: Tensor) -> Tensor:  # [B, c, h, w] x 2 -> [B, 1, h, w]
    """Return the weights of positions in the loss. Half of a weight is the same everywhere, half follows the change.

    Samples without a picture have equal weights.
    """
    change = (after - before).abs().mean(1, keepdim=True)
    share = change / change.mean((2, 3), keepdim=True).clamp_min(1e-4)
    seen = before.flatten(1).any(1)[:, None, None, None]
    return torch.where(seen, 1 - FOCUS + FOCUS * share.clamp_max(MOST), 1.0)


class Triples:
    """Latents before and after the edit, of triples and of their mirror images, and the words of the instructions.

    Instructions never mention left or right, so they also fit the mirror images.
    """

    def __init__(self, latents: Array, words: Array, null: Tensor) -> None:
        self.latents = latents  # float16 [2, 2, N, c, h, w]: before and after, as it is and mirrored
        self.words = words  # float16 [N, L, C]
        self.null = null  # [1, L, C], words of the empty prompt

    @classmethod
    def of(cls, pool: EditPool, folder: Path, embed: Embed, cache: Path) -> "Triples":
        """Encode pictures with the VAE in `folder` and instructions with `embed`, or read them from `cache`."""
        vae, null = load_vae(folder), embed([""]).cpu()
        texts = [edit.instruction for edit in pool.edits]

        def latents() -> Array:
            pictures = (pool.before, pool.after)
            return torch.stack(
                [torch.stack([encode_all(vae, x, flip=flip) for flip in (False, True)]) for x in pictures]
            ).numpy()

        def words() -> Array:
            return torch.cat([embed(texts[i : i + 100]).half().cpu() for i in range(0, len(texts), 100)]).numpy()

        last = encode_all(vae, pool.after[-1:]).numpy()  # it changes with weights and pictures
        name = f"{len(pool)}-{digest(last, embed(texts[-1:]).cpu().numpy())}.npy"
        return cls(cached(cache / f"latents-{name}", latents), cached(cache / f"words-{name}", words), null)

    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw latents before and after the edit [B, c, h, w] each, and words [B, L, C]."""
        chosen, mirrored = (torch.randint(limit, (batch,)).numpy() for limit in (len(self.words), 2))
        before, after = (torch.from_numpy(self.latents[k, mirrored, chosen]).float() for k in (0, 1))
        words = torch.from_numpy(self.words[chosen]).float()
        kind = torch.rand(batch)
        untold, unseen = kind < 2 * WITHOUT, (kind >= WITHOUT) & (kind < 3 * WITHOUT)
        before = torch.where(unseen[:, None, None, None], 0.0, before)
        return before, after, torch.where(untold[:, None, None], self.null, words)

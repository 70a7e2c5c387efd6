"""How well an editor of pictures obeys instructions and keeps the rest, on triples whose exact result is known.

    obeyed     share of the edits whose stated change the style oracle reads: the style, and the new attributes
    kept       share of the attributes that the edit must keep and that the oracle reads as they were
    product    of both: an editor that does nothing keeps all, one that forgets the picture may obey
    psnr       decibels to the exact result. With a style, to the nearest of its hidden variants

The oracle selects nothing. Settings of an editor are chosen by mini/clip-s, on validation triples.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor

from dreamportrait.export.sheets import Row, draw_sheet
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.guidance.sampling import decode
from dreamportrait.metrics.style_oracle import PLAIN, Reading, StyleReader
from dreamportrait.mini.diffusion.evaluation import psnr
from dreamportrait.mini.diffusion.unet import Embed
from dreamportrait.mini.diffusion.vae import encode
from dreamportrait.miniworld.attributes import Attributes
from dreamportrait.miniworld.edit_pool import EditPool
from dreamportrait.miniworld.edits import Edit
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.grammar import an
from dreamportrait.miniworld.styles import Look
from dreamportrait.miniworld.world import RESOLUTION
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling, ddim_step
from dreamportrait.systems.freestyle.prompts import Instruction
from dreamportrait.systems.freestyle.start import add, remaining_steps
from dreamportrait.text.clip_scorer import ClipScorer

NEGATIVE = "blurred"
KINDS = ("style", "attribute", "both")


def kind(edit: Edit) -> str:
    return "attribute" if edit.look.style is None else "both" if edit.changed else "style"


def sharp(pool: EditPool, count: int) -> list[int]:
    """Return the first triples whose result is sharp."""
    return [i for i, edit in enumerate(pool.edits) if not edit.blur][:count]


def told(edit: Edit) -> Attributes:
    """Return the new values of attributes that the instruction states and the result shows."""
    style = edit.look.style
    return {name: value for name, value in edit.changed.items() if style is None or name in style.keeps}


def obeyed(edits: Sequence[Edit], read: Reading) -> Tensor:  # [N] of 0 and 1
    """Return for each edit whether the oracle reads the style and the attributes that it asks for."""
    rows = []
    for edit, style, face in zip(edits, read.styles, read.faces, strict=True):
        wanted = edit.look.style.name if edit.look.style else PLAIN
        rows.append(style == wanted and all(face[name] == value for name, value in told(edit).items()))
    return torch.tensor(rows).float()


def kept(edits: Sequence[Edit], read: Reading) -> Tensor:  # [N], NaN = the edit keeps nothing that is shown
    """Return for each edit the share of the attributes it keeps that the oracle reads as they were."""
    rows = []
    for edit, face in zip(edits, read.faces, strict=True):
        same = [face[name] == edit.face[name] for name in edit.kept()]
        rows.append(sum(same) / len(same) if same else float("nan"))
    return torch.tensor(rows)


def nearest_psnr(made: Tensor, edits: Sequence[Edit]) -> Tensor:  # [N, 3, R, R] -> [N] decibels
    """Return the signal-to-noise ratio to the exact result, to the nearest one if the style has hidden variants."""
    return torch.tensor(
        [
            max(psnr(picture[None], exact[None]) for exact in results(edit))
            for picture, edit in zip(made, edits, strict=True)
        ]
    )


def results(edit: Edit) -> Tensor:  # [variants, 3, R, R] in -1 .. 1
    """Return the exact sharp results of an edit, one for each hidden variant of its style."""
    style = edit.look.style
    looks = [Look(style, variant) for variant in range(style.variants if style else 1)]
    pictures = [render(edit.face_after, edit.traits, edit.camera, RESOLUTION, look).image for look in looks]
    return from_bytes(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()))


def scores(made: Tensor, edits: Sequence[Edit], oracle: StyleReader) -> dict[str, Any]:
    """Return the scores of edited pictures [N, 3, R, R], of all and by kind of edit."""
    read = oracle.read(made)
    shares = obeyed(edits, read), kept(edits, read)
    found: dict[str, Any] = _summary(*shares, nearest_psnr(made, edits))
    for name in KINDS:
        rows = [i for i, edit in enumerate(edits) if kind(edit) == name]
        if rows:
            found[name] = {"edits": len(rows)} | _summary(*(x[rows] for x in shares))
    return found


def _summary(obeys: Tensor, keeps: Tensor, signal: Tensor | None = None) -> dict[str, float]:
    obey, keep = float(obeys.mean()), float(keeps.nanmean())
    found = {"obeyed": obey, "kept": keep, "product": obey * keep}
    if signal is not None:
        found["psnr"] = float(signal.mean())
    return {name: round(value, 2 if name == "psnr" else 4) for name, value in found.items()}


# Editors.


def edited(
    editor: InstructPix2Pix, before: Tensor, edits: Sequence[Edit], sampling: Sampling, batch: int = 50
) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> the same
    """Return the pictures as the editor makes them, all with the same noise."""
    instructions = [Instruction(edit.instruction, NEGATIVE) for edit in edits]
    noise, made = editor.fixed_noise(seed=0), []
    for start in range(0, len(edits), batch):
        part = slice(start, start + batch)
        made.append(editor.edit_each(before[part], instructions[part], noise, sampling).images)
    return as_saved(torch.cat(made))


@torch.no_grad()
def sdedit(
    model: tuple[UNet2DConditionModel, AutoencoderKL, DDIMScheduler],
    embed: Embed,
    before: Tensor,  # [N, 3, R, R] in -1 .. 1
    prompts: Sequence[str],
    strength: float,
    scale: float = 4.0,
    steps: int = 20,
) -> Tensor:  # [N, 3, R, R]
    """Add noise to pictures and let a text-to-image model draw them anew (SDEdit, Meng et al. 2021)."""
    unet, vae, scheduler = model
    alphas = scheduler.alphas_cumprod
    left = remaining_steps(len(alphas), steps, strength, "drop")
    latents = encode(vae, before)
    z = add(latents, torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0)), alphas, left[0])
    words, null = embed(list(prompts)), embed([""])
    both = torch.cat([null.expand_as(words), words])
    for step, after in zip(left, [*left[1:], None], strict=True):
        free, wanted = unet(torch.cat([z, z]), torch.tensor(step), both).sample.chunk(2)
        signal = scheduler.final_alpha_cumprod if after is None else alphas[after]
        z = ddim_step(z, free + scale * (wanted - free), alphas[step], signal)
    return as_saved(decode(vae, z))


def style_prompt(edit: Edit) -> str:
    """Return the style's words as a text-to-image model hears them."""
    assert edit.look.style is not None
    return an(edit.look.style.name)


@torch.no_grad()
def choose(
    candidates: Sequence[Sampling],
    make: Callable[[Sampling], Tensor],  # edits pictures
    exact: Tensor,  # [N, 3, R, R] exact results
    scorer: ClipScorer,
) -> tuple[Sampling, list[float]]:
    """Return the sampling whose pictures are most similar to the exact results for a CLIP, and all similarities."""
    wanted = scorer.image_features(exact)
    found = [float((scorer.image_features(make(each)) * wanted).sum(1).mean()) for each in candidates]
    return candidates[int(np.argmax(found))], found


def sheet(before: Tensor, made: Tensor, edits: Sequence[Edit], after: Tensor) -> Image.Image:
    """Draw a row for each edit: the picture, the edited one, the exact result."""
    rows = [Row(edit.instruction, torch.stack(row)) for edit, *row in zip(edits, before, made, after, strict=True)]
    return draw_sheet(rows)


def save_sheet(picture: Image.Image, path: Path) -> None:
    """Save a sheet with 256 colours, which halves its file."""
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)

"""Measure the finished weights: scores.json and sheet.png for diffusion and eg3d, before the cards are written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.eg3d.folder import load_generator
from dreamportrait.mini.diffusion import evaluation as diffusion_scores
from dreamportrait.mini.diffusion.folder import load_diffusion
from dreamportrait.mini.eg3d import evaluation as eg3d_scores
from dreamportrait.miniworld.world import World
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextEncoder

SCORES, SHEET = "scores.json", "sheet.png"
GUIDANCE_SCALES = (1.5, 2.0, 3.0, 4.0, 6.0)
SAMPLED = 200  # captions for the scores of samples
SHOWN = 12  # samples in a sheet


def write(out: Path, test: World, others: World) -> None:
    """Measure OUT/diffusion and OUT/eg3d with OUT/clip-b. CLIPs and the oracle were scored after their training.

    others: faces that are not in `test`, as a yardstick.
    """
    torch.manual_seed(0)
    judge = ClipScorer(compact_clip.load(out / "clip-b"), compact_clip.tokenizer())
    encoder = TextEncoder(compact_clip.load(out / "clip-a"), compact_clip.tokenizer())
    unet, vae, scheduler = load_diffusion(out / "diffusion")

    def embed(prompts: list[str]) -> Tensor:
        return encoder.encode(prompts, shorten=False).words

    def reconstruct(images: Tensor) -> Tensor:
        return diffusion_scores.reconstruct(vae, images)

    sampled = {
        f"{scale:g}": dataclasses.asdict(
            diffusion_scores.score_samples(
                unet, vae, scheduler, embed, test, judge, guidance_scale=scale, count=SAMPLED
            )
        )
        for scale in GUIDANCE_SCALES
    }
    best = max(GUIDANCE_SCALES, key=lambda scale: sampled[f"{scale:g}"]["caption_to_image"])
    scores = {
        "vae": dataclasses.asdict(diffusion_scores.score_vae(vae, test, judge)),
        "ddim_20_steps_by_guidance_scale": sampled,
        "best_guidance_scale": best,
    }
    _write(out / "diffusion" / SCORES, scores)
    generator = load_generator(out / "eg3d")
    _write(out / "eg3d" / SCORES, eg3d_scores.score(generator, reconstruct, test, others, judge))
    draw_sheets(out, test)


def draw_sheets(out: Path, test: World) -> None:
    """Draw the sheets of the cards: samples of OUT/diffusion for captions of `test`, and heads of OUT/eg3d."""
    torch.manual_seed(0)
    unet, vae, scheduler = load_diffusion(out / "diffusion")
    encoder = TextEncoder(compact_clip.load_text(out / "clip-a"), compact_clip.tokenizer())
    scale = json.loads((out / "diffusion" / SCORES).read_text(encoding="utf-8"))["best_guidance_scale"]
    captions = [test.evaluation_caption(i) for i in range(SHOWN)]
    made = diffusion_scores.sample_captions(
        unet,
        vae,
        scheduler,
        lambda prompts: encoder.encode(prompts, shorten=False).words,
        captions,
        guidance_scale=scale,
    )
    diffusion_scores.sample_sheet(made, captions, out / "diffusion" / SHEET)
    eg3d_scores.portrait_sheet(load_generator(out / "eg3d"), out / "eg3d" / SHEET, SHOWN)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {json.dumps(values)}", flush=True)

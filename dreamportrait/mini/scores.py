"""Measure the finished weights: scores.json and sheet.png for diffusion and eg3d, before the cards are written.

The scale of guidance is chosen on the validation faces; the test faces give the scores of the cards.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.eg3d.folder import load_generator
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics.sharpness import RealPatches, sharpness
from dreamportrait.mini import probe
from dreamportrait.mini.diffusion import evaluation as diffusion_scores
from dreamportrait.mini.diffusion.folder import load_diffusion
from dreamportrait.mini.eg3d import evaluation as eg3d_scores
from dreamportrait.miniworld.world import World, load
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextEncoder

SCORES, SHEET = "scores.json", "sheet.png"
GUIDANCE_SCALES = (1.5, 2.0, 3.0, 4.0, 6.0)
SAMPLED = 200  # captions for the scores of samples
SHARP = 500  # pictures whose sharpness is measured
SHOWN = 12  # samples in a sheet


def write(out: Path, test: World, others: World) -> None:
    """Measure OUT/diffusion and OUT/eg3d with OUT/clip-b, and probe both CLIPs.

    Retrieval by the CLIPs and the oracle's accuracy were measured after their training.

    others: faces that are not in `test`, as a yardstick.
    """
    torch.manual_seed(0)
    for name in ("clip-a", "clip-b"):
        probe.write(out / name)
    judge = ClipScorer(compact_clip.load(out / "clip-b"), compact_clip.tokenizer())
    encoder = TextEncoder(compact_clip.load(out / "clip-a"), compact_clip.tokenizer())
    unet, vae, scheduler = load_diffusion(out / "diffusion")

    def embed(prompts: list[str]) -> Tensor:
        return encoder.encode(prompts, shorten=False).words

    def reconstruct(images: Tensor) -> Tensor:
        return diffusion_scores.reconstruct(vae, images)

    def retrieved(world: World, scale: float) -> dict[str, float]:
        """Return the retrieval scores of samples for the captions of a world."""
        found = diffusion_scores.score_samples(
            unet, vae, scheduler, embed, world, judge, guidance_scale=scale, count=SAMPLED
        )
        return dataclasses.asdict(found)

    chosen = {f"{scale:g}": retrieved(load("validation", SAMPLED), scale) for scale in GUIDANCE_SCALES}
    best = max(GUIDANCE_SCALES, key=lambda scale: chosen[f"{scale:g}"]["caption_to_image"])
    scores = {
        "vae": dataclasses.asdict(diffusion_scores.score_vae(vae, test, judge))
        | sharp(reconstruct(first(others, min(SHARP, len(test)))), test),
        "validation_ddim_20_steps_by_guidance_scale": chosen,
        "best_guidance_scale": best,
        "ddim_20_steps": retrieved(test, best),
    }
    _write(out / "diffusion" / SCORES, scores)
    generator = load_generator(out / "eg3d")
    found = eg3d_scores.score(generator, reconstruct, test, others, judge)
    _write(out / "eg3d" / SCORES, found | sharp(eg3d_scores.draw(generator, min(SHARP, len(test))), test))
    draw_sheets(out, test)


def sharp(images: Tensor, world: World) -> dict[str, Any]:  # [N, 3, R, R]
    """Return the sharpness of pictures, compared with the first faces of a world."""
    real = RealPatches(lambda i: torch.from_numpy(world.images[i].copy()), len(images), len(world))
    places = sharpness(as_saved(images), real)
    return {
        "sharpness": {
            place: {name: round(value, 1) for name, value in dataclasses.asdict(found).items()}
            for place, found in places.items()
        }
    }


def first(world: World, count: int) -> Tensor:  # [count, 3, R, R] in -1 .. 1
    return from_bytes(torch.from_numpy(world.images[:count].copy()))


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

"""Measure the published models of styled heads: scores.json and sheets, before the cards are written.

Everything is measured on validation data. The judges, clip-t and style-oracle, select nothing: the scales of the editor
are chosen by clip-s, and the strength of its rival SDEdit is the one that is best for SDEdit.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics import style_oracle
from dreamportrait.mini import edit_scores
from dreamportrait.mini.diffusion import evaluation
from dreamportrait.mini.diffusion.folder import load_diffusion
from dreamportrait.mini.diffusion.styled import UNSEEN, words_of
from dreamportrait.miniworld.edit_pool import EditPool
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer

SCORES, SHEET = "scores.json", "sheet.png"
HEADS, SAMPLED, SHOWN = 600, 100, 12
EDITS, CHOOSING = 120, 30  # triples that are scored; that settings are chosen on
GUIDANCE_SCALE = 4.0
SCALES = tuple(Sampling(text_scale=text, image_scale=1.5) for text in (1.5, 2.0, 3.0, 5.0))
STRENGTHS = (0.5, 0.7, 0.9)  # of SDEdit


def write(out: Path, world: StyledWorld, triples: EditPool) -> None:
    """Measure OUT/diffusion-styles and OUT/ip2p with the CLIPs and the oracle in OUT."""
    torch.manual_seed(0)
    if (out / "clip-t").is_dir():
        _write(out / "diffusion-styles", score_diffusion(out, world))
    else:
        print(f"{out / 'diffusion-styles'}: not measured, because its judge {out / 'clip-t'} is not there", flush=True)
    _write(out / "ip2p", score_editor(out, triples))


def score_diffusion(out: Path, world: StyledWorld) -> dict[str, Any]:
    """Return the VAE's signal-to-noise ratios by style, and how a judge recognises samples. Draw the sheet."""
    folder = out / "diffusion-styles"
    unet, vae, scheduler = load_diffusion(folder)
    embed, judge = words_of(out / "clip-s"), _scorer(out / "clip-t")
    images = from_bytes(torch.from_numpy(np.array(world.images[:HEADS])))
    made = evaluation.reconstruct(vae, images)
    names = [found.name if (found := world.look(i).style) else "plain" for i in range(len(images))]
    by_style = {
        name: round(evaluation.psnr(made[rows], images[rows]), 2)
        for name in dict.fromkeys(sorted(names))
        if (rows := [i for i, other in enumerate(names) if other == name])
    }
    captions = [world.evaluation_caption(i) for i in range(SAMPLED)]
    model = unet, vae, scheduler, embed
    samples = evaluation.sample_captions(*model, captions, guidance_scale=GUIDANCE_SCALE)
    evaluation.sample_sheet(samples[:SHOWN], captions[:SHOWN], folder / SHEET)
    return {
        "vae_psnr": {"all": round(evaluation.psnr(made, images), 2)} | by_style,
        "not_trained_on": ", ".join(UNSEEN),
        "real": dataclasses.asdict(evaluation.retrieval(judge, images[:SAMPLED], captions)),
        "ddim_20_steps": dataclasses.asdict(evaluation.retrieval(judge, samples, captions)),
    }


def score_editor(out: Path, triples: EditPool) -> dict[str, Any]:
    """Return the scores of the editor and of its rivals. Draw the sheet."""
    editor, oracle = load_editor(out / "ip2p", out / "clip-s"), style_oracle.load(out / "style-oracle")
    rows = edit_scores.sharp(triples, EDITS + CHOOSING)
    edits = [triples.edits[i] for i in rows]
    before, after = (from_bytes(torch.from_numpy(x[rows])) for x in (triples.before, triples.after))
    own = slice(EDITS, EDITS + CHOOSING)
    best, similar = edit_scores.choose(
        SCALES,
        lambda sampling: edit_scores.edited(editor, before[own], edits[own], sampling),
        after[own],
        _scorer(out / "clip-s"),
    )
    edits, before, after = edits[:EDITS], before[:EDITS], after[:EDITS]
    made = edit_scores.edited(editor, before, edits, best)
    edit_scores.save_sheet(
        edit_scores.sheet(before[:SHOWN], made[:SHOWN], edits[:SHOWN], after[:SHOWN]), out / "ip2p" / SHEET
    )
    return {
        "edits": len(edits),
        "text_scale": best.text_scale,
        "image_scale": best.image_scale,
        "start": best.start,
        "similarity_by_text_scale": {
            f"{each.text_scale:g}": round(value, 4) for each, value in zip(SCALES, similar, strict=True)
        },
        "editor": edit_scores.scores(made, edits, oracle),
        "nothing": edit_scores.scores(before, edits, oracle),
        "exact": edit_scores.scores(after, edits, oracle),
        "styles_that_diffusion_knows": score_styles(out, before, made, edits, oracle),
    }


def score_styles(out: Path, before: Any, made: Any, edits: Any, oracle: style_oracle.StyleReader) -> dict[str, Any]:
    """Return the scores of edits to a style alone, by the editor and by SDEdit with mini/diffusion-styles."""
    model, embed = load_diffusion(out / "diffusion-styles"), words_of(out / "clip-s")
    rows = [
        i
        for i, edit in enumerate(edits)
        if edit_scores.kind(edit) == "style" and edit.look.style and edit.look.style.name not in UNSEEN
    ]
    chosen = [edits[i] for i in rows]
    prompts = [edit_scores.style_prompt(edit) for edit in chosen]
    found: dict[str, Any] = {"editor": edit_scores.scores(made[rows], chosen, oracle)}
    for strength in STRENGTHS:
        drawn = edit_scores.sdedit(model, embed, before[rows], prompts, strength)
        found[f"sdedit_{strength:g}"] = edit_scores.scores(drawn, chosen, oracle)
    return {name: {key: value for key, value in row.items() if key in ROW} for name, row in found.items()}


ROW = ("obeyed", "kept", "product", "psnr")


def load_editor(folder: Path, clip: Path, device: str = "cpu") -> InstructPix2Pix:
    """Load an editor with the words of a CLIP, whether they are in the package or not."""
    unet, vae, scheduler = load_diffusion(folder)
    for network in (unet, vae):
        nn.Module.to(network, device)
    prediction = scheduler.config["prediction_type"]
    return InstructPix2Pix(unet, vae, scheduler.alphas_cumprod, prediction, words_of(clip))


def _scorer(folder: Path) -> ClipScorer:
    return ClipScorer(compact_clip.load(folder), compact_clip.tokenizer())


def _write(folder: Path, values: dict[str, Any]) -> None:
    (folder / SCORES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"{folder / SCORES}: {json.dumps(values)}", flush=True)

"""Measure how much pictures of one prompt can differ: ceilings for the prompt diversity of `dreamportrait evaluate`.

\b
    python -m dreamportrait.mini.ceilings --out ceilings.json

The prompts, the number of portraits of each and the judge are those of `evaluate`. Measured are the literal answer,
random faces drawn by the world's own renderer and changed only where the prompt states something, and pictures that
mini/diffusion, the teacher of the generator, samples by DDIM at several scales of guidance. A generator without text
conditioning is no ceiling: its faces differ in everything that a prompt fixes.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait import __version__
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import write_text
from dreamportrait.data.names import FACES
from dreamportrait.metrics.report import table

if TYPE_CHECKING:
    from torch import Tensor

    from dreamportrait.miniworld.world import World

# The functions import what takes seconds to load, so that --help appears at once.

SCALES = (1.0, 2.0, 4.0, 8.0)  # 1 = without guidance
STEPS = 20
LITERAL = "rendered as stated"


@dataclass(frozen=True)
class Ceiling:
    """Scores of K pictures of each of P prompts, seen from the front."""

    features: float  # within a prompt: mean of 1 - cosine of the judge's features
    colors: float  # within a prompt: mean absolute difference of colours
    across: float  # mean of 1 - cosine between prompts, one picture of each
    said: float  # share of named attributes that are shown
    complete: float  # share of pictures that show all named attributes


def measure(split: str, prompts: int, per_prompt: int) -> dict[str, Ceiling]:
    """Return the ceilings by name."""
    from dreamportrait.miniworld.world import load

    world = load(split, max(prompts, FACES[split]))
    score = _scorer(world, prompts, per_prompt)
    found = {LITERAL: score(literal(world, prompts, per_prompt))}
    sample = _teacher(world, prompts, per_prompt)
    return found | {f"teacher, scale {scale:g}": score(sample(scale)) for scale in SCALES}


def literal(world: "World", prompts: int, per_prompt: int) -> "Tensor":  # [P * K, 3, R, R]
    """Render `per_prompt` faces for each evaluation caption that show what it states."""
    from dreamportrait.mini.eg3d.evaluation import front
    from dreamportrait.mini.stated_faces import obeying

    return obeying(lambda i: world.evaluation_facts(i // per_prompt), front(prompts * per_prompt))


def _teacher(world: "World", prompts: int, per_prompt: int) -> "Callable[[float], Tensor]":
    from dreamportrait.mini.diffusion.evaluation import sample_captions
    from dreamportrait.mini.models import from_pretrained
    from dreamportrait.text.encoder import TextEncoder

    unet, vae, scheduler = from_pretrained("mini/diffusion")
    encoder = TextEncoder(*from_pretrained("mini/clip-a"))
    captions = [world.evaluation_caption(i // per_prompt) for i in range(prompts * per_prompt)]

    def embed(texts: list[str]) -> "Tensor":
        return encoder.encode(texts, shorten=False).words

    return lambda scale: sample_captions(unet, vae, scheduler, embed, captions, guidance_scale=scale, steps=STEPS)


def _scorer(world: "World", prompts: int, per_prompt: int) -> "Callable[[Tensor], Ceiling]":
    import torch

    from dreamportrait.geometry.images import as_saved
    from dreamportrait.metrics import diversity
    from dreamportrait.metrics.oracle import OracleScore
    from dreamportrait.metrics.world_oracle import WorldOracle
    from dreamportrait.mini.models import from_pretrained
    from dreamportrait.text.clip_scorer import ClipScorer

    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    oracle = WorldOracle(from_pretrained("mini/oracle"), lambda i: world.evaluation_facts(i // per_prompt))

    @torch.no_grad()
    def score(images: "Tensor") -> Ceiling:  # [P * K, 3, R, R]
        shown = as_saved(images)
        grids = [each.unflatten(0, (prompts, per_prompt)) for each in (judge.image_features(shown), shown)]
        within, across = diversity.within(*grids), diversity.across(*grids)
        said = OracleScore.of(oracle.judge(shown, list(range(len(shown)))), oracle.names)
        return Ceiling(within.features, within.colors, across.features, said.share, said.complete)

    return score


def rows(found: dict[str, Ceiling]) -> list[list[str]]:
    return [
        [
            name,
            *(f"{value:.3f}" for value in (each.features, each.colors, each.across)),
            f"{100 * each.said:.1f} %",
            f"{100 * each.complete:.1f} %",
        ]
        for name, each in found.items()
    ]


HEAD = ("ceiling", "prompt diversity", "colours", "identity diversity", "said and shown", "all said and shown")


def as_json(found: dict[str, Ceiling], split: str, prompts: int, per_prompt: int) -> dict[str, Any]:
    settings = {"dataset": f"miniworld:{split}", "prompts": prompts, "per_prompt": per_prompt, "ddim_steps": STEPS}
    return settings | {"version": __version__, "ceilings": {name: asdict(each) for name, each in found.items()}}


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
@click.option("--split", type=click.Choice(list(FACES)), default="validation", show_default=True)
@click.option("--prompts", type=click.IntRange(min=2), default=50, show_default=True, help="Evaluation captions.")
@click.option("--per-prompt", type=click.IntRange(min=2), default=4, show_default=True, help="Pictures of each.")
def main(out: Path, split: str, prompts: int, per_prompt: int) -> None:
    with one_message():
        if out.exists():
            raise FileExistsError(f"{out} exists; name another file, or remove it")
        found = measure(split, prompts, per_prompt)
        write_text(out, json.dumps(as_json(found, split, prompts, per_prompt), indent=2) + "\n")
    click.echo(f"{table(HEAD, rows(found))}\nwrote {out}")


if __name__ == "__main__":
    main()

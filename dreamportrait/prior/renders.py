"""A sample of what a frozen generator draws: w of random seeds, and what a CLIP sees in their pictures.

The sample is written in parts to a folder, so that it can be stopped and continued.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.images import as_saved
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.text.clip_scorer import ClipScorer

PART = 1000  # renders in a file
BATCH = 16


@dataclass(frozen=True)
class Renders:
    w: Tensor  # [N, w_dim]
    features: Tensor  # [N, F] float16
    embeddings: Tensor  # [N, E] unit vectors of CLIP


@torch.no_grad()
def render(
    generator: TriPlaneGenerator,
    see: PictureFeatures,
    scorer: ClipScorer,
    cameras: Tensor,  # [M, 25] of the data set; every other picture is seen from one of them, the rest from the front
    count: int,
    folder: Path,
    *,
    seed: int,
    report: Callable[[int], object] = lambda done: None,  # called with the number of pictures that were added
) -> Renders:
    """Render the pictures of `count` seeds, or read those that are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in range(0, count, PART):
        path = folder / f"{number:07}.safetensors"
        size = min(PART, count - number)
        if not path.exists():
            unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            save_file(_part(generator, see, scorer, cameras, size, seed * 1_000_003 + number, report), unfinished)
            os.replace(unfinished, path)
        else:
            report(size)
        parts.append(load_file(path))
    return Renders(*(torch.cat([part[name] for part in parts]) for name in ("w", "features", "embeddings")))


def _part(
    generator: TriPlaneGenerator,
    see: PictureFeatures,
    scorer: ClipScorer,
    cameras: Tensor,
    count: int,
    seed: int,
    report: Callable[[int], object],
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.config.z_dim, generator=draw)
    device = next(generator.parameters()).device
    front = generator.config.around([0.0]).to(device)
    views = cameras[torch.randint(len(cameras), (count,), generator=draw)].to(device)
    views[::2] = front
    found: dict[str, list[Tensor]] = {"w": [], "features": [], "embeddings": []}
    for latents, view in zip(z.split(BATCH), views.split(BATCH), strict=True):
        ws = generator.map(latents.to(device), front.expand(len(latents), -1))
        pictures = as_saved(generator.render(generator.synthesize_planes(ws), view, w=ws).image)
        found["w"].append(ws[:, 0].cpu())
        found["features"].append(see(pictures).half().cpu())
        found["embeddings"].append(scorer.image_features(pictures).cpu())
        report(len(latents))
    return {name: torch.cat(values) for name, values in found.items()}

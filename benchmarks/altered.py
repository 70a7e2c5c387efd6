"""Pictures that were made worse on purpose, and those of generators, with their sharpness: the rows of sharpness.py."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics.sharpness import RealPatches, sharpness
from dreamportrait.metrics.subject import SAMPLES, latents
from dreamportrait.mini.diffusion.evaluation import reconstruct
from dreamportrait.mini.eg3d.evaluation import draw
from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.dreamportrait.subject import load_subject

NOISE_SEED = 0
RESEEDED = ("other real", "eg3d", "model")  # rows that are also measured with other seeds


def altered(pictures: Pictures, count: int) -> dict[str, Tensor]:
    """Return sets of `count` pictures [N, 3, R, R] by what was done to them. None shows a face of the first `count`."""
    first, second = (
        from_bytes(torch.stack([pictures.image(i) for i in range(start, start + count)]))
        for start in (count, 2 * count)
    )
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(NOISE_SEED))
    return {
        "other real": first,
        "VAE": reconstruct(from_pretrained("mini/diffusion")[1], first),
        "blur 0.5 px": blurred(first, 0.5),
        "blur 0.8 px": blurred(first, 0.8),
        "noise 0.03": first + 0.03 * noise,
        "ghost 85:15": 0.85 * first + 0.15 * second,
        "ghost 50:50": (first + second) / 2,
    }


def blurred(images: Tensor, sigma: float) -> Tensor:  # [N, 3, R, R]
    """Filter with a Gaussian of `sigma` pixels."""
    row = torch.exp(-torch.arange(-4.0, 5.0).square() / (2 * sigma**2))
    kernel = torch.outer(row, row).div(row.sum().square()).expand(3, 1, 9, 9)
    return F.conv2d(F.pad(images, (4, 4, 4, 4), mode="reflect"), kernel, groups=3)


@torch.no_grad()
def generated(model: str, pictures: Pictures, count: int, batch: int = 25) -> Tensor:
    """Return the pictures that `dreamportrait evaluate` compares with real ones."""
    subject, parts = load_subject(model).subject, []
    for start in range(0, count, batch):
        numbers = list(range(start, min(start + batch, count)))
        z = latents(subject.config.z_dim, 0, SAMPLES, numbers)
        heads = subject.portray([pictures.captions(i)[0] for i in numbers], z, 1.0)
        parts.append(heads.view(pictures.cameras[numbers]).image)
    return torch.cat(parts)


def measured(pictures: Pictures, count: int, seeds: int, model: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the name of a set, the seed of the patches and the scores by place."""
    sets = altered(pictures, count)
    sets["eg3d"] = draw(from_pretrained("mini/eg3d").generator, count)
    sets["model"] = generated(model, pictures, count)
    for seed in range(seeds):
        real = RealPatches(pictures.image, count, len(pictures), seed)
        for name in sets if not seed else RESEEDED:
            yield name, seed, {place: asdict(each) for place, each in sharpness(as_saved(sets[name]), real).items()}

"""How like the model's own pictures splats are: PSNR over random cameras of the trained range, background included.

rule       splats without the trained network, drawn at the size of the pictures
corrected  the same with the network
viewers    corrected, written to .spz and read back, drawn at four times the size with the blur that viewers add,
           and averaged down
"""

import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.eg3d.planes import Planes, trained_angles
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.splat_head import SplatHead
from dreamportrait.export.splats import Splats, make_splats
from dreamportrait.geometry.splat_raster import VIEWERS_BLUR
from dreamportrait.mini.own_prompts import PROMPTS

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

PORTRAITS, CAMERAS = 4, 16
FIRST_SEED = 5000  # below the seeds of training portraits, beyond those that people try first
FINER = 4
KINDS = ("rule", "corrected", "viewers")


def measure(pipe: "DreamPortraitPipeline", network: SplatHead | bool) -> dict[str, Any]:
    """Return the scores of a network for the portraits of a pipeline, for its card."""
    rows = [likeness(head, CAMERAS, FIRST_SEED + i, network) for i, head in enumerate(portraits(pipe, PORTRAITS))]
    means = {f"PSNR, {kind}": round(statistics.mean(row[kind] for row in rows), 2) for kind in KINDS}
    worst = {
        "PSNR, viewers, worst portrait": round(min(row["viewers"] for row in rows), 2),
        "PSNR, viewers, worst camera": round(min(row["worst_camera"] for row in rows), 2),
    }
    most = {"splats": max(row["splats"] for row in rows), "bytes of a .spz": max(row["bytes"] for row in rows)}
    return {**means, **worst, **most, "portraits": PORTRAITS, "cameras of each": CAMERAS}


def portraits(pipe: "DreamPortraitPipeline", count: int) -> list[Planes]:
    """Make portraits of prompts and seeds that nothing was trained on or chosen by."""
    return [pipe(prompt, FIRST_SEED + index).head for index, prompt in enumerate(prompts(count))]


def prompts(count: int) -> list[str]:
    return list(PROMPTS)[:: max(len(PROMPTS) // count, 1)][:count]


def likeness(head: Planes, cameras: int, seed: int, network: SplatHead | bool = True) -> dict[str, Any]:
    """Return PSNRs of one head, by kind, the worst PSNR of a single camera in viewers, and the size of the .spz."""
    labels = random_cameras(head.generator, cameras, seed)
    wanted = ((head.views(labels)[0].colors.float().cpu() + 1) / 2).clamp(0, 1)  # [V, 3, R, R]
    corrected = make_splats(head, corrections=network)
    with tempfile.TemporaryDirectory() as folder:
        corrected.save(path := Path(folder) / "head.spz")
        packed, size = Splats.load(path), path.stat().st_size
    errors = {
        "rule": _errors(make_splats(head, corrections=False), labels, wanted, 1),
        "corrected": _errors(corrected, labels, wanted, 1),
        "viewers": _errors(packed, labels, wanted, FINER),
    }
    found: dict[str, Any] = {name: _decibels(statistics.mean(values)) for name, values in errors.items()}
    return {"splats": len(corrected), **found, "worst_camera": _decibels(max(errors["viewers"])), "bytes": size}


def _errors(splats: Splats, labels: Tensor, wanted: Tensor, finer: int) -> list[float]:
    """Return the mean squared error of each camera."""
    drawn = _pictures(splats, labels, finer, wanted.shape[-1])
    return [float((a - b).square().mean()) for a, b in zip(drawn, wanted, strict=True)]


def _pictures(splats: Splats, labels: Tensor, finer: int, size: int) -> Iterator[Tensor]:
    blur = VIEWERS_BLUR if finer > 1 else 0.0
    for drawn in splats.draw(labels, finer * size, blur):
        yield F.avg_pool2d(drawn.colors.clamp(0, 1), finer)


def _decibels(error: float) -> float:
    return -10 * math.log10(max(error, 1e-10))


def random_cameras(generator: TriPlaneGenerator, count: int, seed: int) -> Tensor:  # [count, 25]
    """Draw cameras evenly over the yaws and pitches that the generator was trained with."""
    rng = torch.Generator().manual_seed(seed)
    limits = torch.tensor([min(limit, 89.0) for limit in trained_angles(generator)])
    angles = (torch.rand(count, 2, generator=rng) * 2 - 1) * limits
    return torch.cat([generator.config.around([yaw], pitch) for yaw, pitch in angles.tolist()])

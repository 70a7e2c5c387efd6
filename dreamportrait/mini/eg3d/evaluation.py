"""Evaluation of the miniature EG3D: distance to real pictures, consistency of views, diversity, and sheets."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.sheets import depth_to_images, save_sheet
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.metrics.consistency import reprojection_error
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.miniworld.world import FOV, RADIUS, World, random_cameras
from dreamportrait.text.clip_scorer import ClipScorer

BEHIND = 2.8  # larger distances are background
TOLERANCE = 0.03  # in world units; a pixel is 0.01 wide
YAWS = (-0.4, 0.0, 0.4)


def front(count: int, yaw: float = 0.0) -> Tensor:
    """Return labels [count, 25] of a frontal camera, turned sideways by `yaw` radians."""
    return camera_label(official_pose(math.pi / 2 + yaw, radius=RADIUS), intrinsics_from_fov(FOV)).expand(count, -1)


def portraits(generator: TriPlaneGenerator, count: int, seed: int, truncation: float = 1.0) -> Planes:
    """Draw identities from noise and return their planes."""
    z = torch.randn(count, generator.config.z_dim, generator=torch.Generator().manual_seed(seed))
    ws = generator.map(z, front(count), truncation)
    return Planes(generator, generator.synthesize_planes(ws), ws)


@torch.inference_mode()
def draw(generator: TriPlaneGenerator, count: int, seed: int = 0, truncation: float = 1.0, batch: int = 50) -> Tensor:
    """Return generated pictures [count, 3, R, R]; their cameras have the distribution of the real ones."""
    cameras = torch.from_numpy(random_cameras(count, seed))
    parts = []
    for i in range(0, count, batch):
        part = cameras[i : i + batch]
        parts.append(portraits(generator, len(part), seed + i, truncation).view(part).image)
    return torch.cat(parts)


@torch.inference_mode()
def consistency(generator: TriPlaneGenerator, count: int = 50, seed: int = 0) -> dict[str, float]:
    """Compare the front with views turned by 0.4 rad.

    Return the differences of colour (0 to 1) and depth (world units), and the share of pixels seen in both.
    """
    found = portraits(generator, count, seed)
    views = {yaw: found.view(front(count, yaw)) for yaw in YAWS}
    first = (views[0.0].image, views[0.0].depth, front(count))
    errors = [
        reprojection_error(first, (views[yaw].image, views[yaw].depth, front(count, yaw)), BEHIND, TOLERANCE)
        for yaw in YAWS
        if yaw != 0
    ]
    means = {name: float(torch.stack([getattr(e, name) for e in errors]).mean()) for name in ("color", "depth", "seen")}
    return {"color": means["color"] / 2, "depth": means["depth"], "seen": means["seen"]}


@torch.inference_mode()
def score(
    generator: TriPlaneGenerator,
    reconstruct: Callable[[Tensor], Tensor],
    world: World,
    others: World,
    judge: ClipScorer,
    count: int = 2000,
) -> dict[str, Any]:
    """Return distances to the pictures of `world`, diversity and consistency of views.

    The yardstick is the distance of `others`: other faces of the same kind, as they are and reconstructed by the mini
    VAE (`reconstruct`). They must differ from the faces of `world`, because generated faces do too: reconstructions of
    the pictures of `world` themselves are nearer than any sample could be.
    """
    real, other = (torch.from_numpy(each.images[:count].copy()).float() / 127.5 - 1 for each in (world, others))
    pictures = {
        "generated": draw(generator, len(real)),
        "other_reconstructed": reconstruct(other),
        "other_real": other,
        "same_reconstructed": reconstruct(real),
    }
    features = {name: judge.image_features(images) for name, images in {"real": real, **pictures}.items()}
    moments = {name: Moments.of(value) for name, value in features.items()}
    distance = {name: round(frechet_distance(moments["real"], moments[name]), 5) for name in pictures}
    truncated = judge.image_features(draw(generator, 400, truncation=0.5))
    return {
        "frechet_distance_mini_clip_b": distance,
        "diversity": {
            "real": spread(features["real"][:400]),
            "generated": spread(features["generated"][:400]),
            "truncated_0.5": spread(truncated),
        },
        "reprojection_error_yaw_0.4": {k: round(v, 4) for k, v in consistency(generator).items()},
    }


def spread(features: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs."""
    n = len(features)
    return round(float(1 - ((features @ features.T).sum() - n) / (n * (n - 1))), 4)


# Sheets.


@torch.inference_mode()
def portrait_sheet(generator: TriPlaneGenerator, path: Path, count: int = 12, seed: int = 0, scale: int = 2) -> None:
    """Save one portrait per column: from the left, the front and the right, and its depth."""
    found = portraits(generator, count, seed)
    views = [found.view(front(count, yaw)) for yaw in YAWS]
    depth = depth_to_images(views[1].depth, 2.35, 3.0)
    save_sheet([*(view.image for view in views), depth], path, scale)

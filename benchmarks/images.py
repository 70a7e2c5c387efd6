"""Whole images of the full FFHQ 512 configuration, ours and those of the official code."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Row, side_by_side, table
from dreamportrait.core.timing import peak_megabytes, seconds
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose

RESOLUTION = 128  # pixels of the rendered image, as in ffhq512-128


def our_generator(device: str, precision: Any) -> TriPlaneGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(precision=precision, render_resolution=RESOLUTION)
    generator = TriPlaneGenerator(config).to(device).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    return generator


def inputs(batch: int, device: str, z_dim: int = 512) -> tuple[Tensor, Tensor]:
    z = torch.randn(batch, z_dim, generator=torch.Generator().manual_seed(1))
    camera = camera_label(official_pose(torch.linspace(1.3, 1.8, batch)), intrinsics_from_fov(18.837))
    return z.to(device), camera.to(device)


def our_passes(ours: TriPlaneGenerator, batch: int, device: str) -> dict[str, Callable[[], Tensor]]:
    z, camera = inputs(batch, device, ours.config.z_dim)
    w = ours.map(z, camera)
    planes = ours.synthesize_planes(w)
    return {
        "new image": lambda: ours(z, camera).image,
        "new view": lambda: ours.render(planes, camera, w=w).image,
    }


def official_passes(theirs: Any, batch: int, device: str) -> dict[str, Callable[[], Tensor]]:
    z, camera = inputs(batch, device)
    w = theirs.mapping(z, camera)
    theirs.synthesis(w, camera, noise_mode="const", cache_backbone=True)
    return {
        "new image": lambda: theirs.synthesis(theirs.mapping(z, camera), camera, noise_mode="const")["image"],
        "new view": lambda: theirs.synthesis(w, camera, noise_mode="const", use_cached_backbone=True)["image"],
    }


def largest_difference(ours: TriPlaneGenerator, theirs: Any, batch: int, device: str) -> float:
    """Return the largest difference of the two images. Every draw is 0.5, the only value both can be made to use."""
    z, camera = inputs(batch, device)
    half = tuple(torch.full((batch, RESOLUTION**2, 48), 0.5, device=device) for _ in range(2))
    image = ours(z, camera, draws=half).image

    def all_half(*shape: int, **options: Any) -> Tensor:
        return torch.full(shape, 0.5, device=options.get("device"))

    with mock.patch("torch.rand", all_half), mock.patch("torch.rand_like", lambda x, **_: torch.full_like(x, 0.5)):
        expected = theirs.synthesis(theirs.mapping(z, camera), camera, noise_mode="const")["image"]
    return (image - expected).abs().max().item()


def gigaflops(run: Callable[[], object], rays: int) -> float:
    """Count convolutions and matrix products, plus the decoder's 4160 multiply-adds for each of 96 samples per ray."""
    with FlopCounterMode(display=False) as counter:
        run()
    return (counter.get_total_flops() + rays * 96 * 2 * 4160) / 1e9


def run(path: Path | None, device: str, batches: list[int], repeats: int, precision: str) -> list[Row]:
    """Measure every batch size. `path` is the official checkout; None = measure only ours."""
    ours, theirs = our_generator(device, precision), None
    if path is not None:
        from benchmarks import official  # needs the packages of training, which a machine for the ops may lack

        official.find(path)
        theirs = official.make_generator(ours, device)
    with torch.inference_mode():  # the networks are older: tensors made inside cannot be checked for changes
        return [row for batch in batches for row in rows_of(ours, theirs, batch, repeats, device)]


def rows_of(ours: TriPlaneGenerator, theirs: Any, batch: int, repeats: int, device: str) -> Iterator[Row]:
    other = official_passes(theirs, batch, device) if theirs else {}
    compared = {"largest_difference": largest_difference(ours, theirs, batch, device)} if theirs else {}
    for case, own in our_passes(ours, batch, device).items():
        measured = against(other[case], own, batch, repeats, device) if theirs else alone(own, batch, repeats, device)
        flops = gigaflops(own, batch * RESOLUTION**2) / batch
        speed = {"GFLOP_per_image": flops, "GFLOPs_ours": flops / measured["s_per_image_ours"]}
        row = {"case": case, "batch": batch} | measured | speed | compared
        print(table([row]), flush=True)
        yield row


def against(other: Callable[[], Tensor], own: Callable[[], Tensor], batch: int, repeats: int, device: str) -> Row:
    timing = side_by_side(other, own, repeats, device, warm_ups=1)
    return {
        "s_per_image_official": timing["ms_reference"] / 1000 / batch,
        "s_per_image_ours": timing["ms_compiled"] / 1000 / batch,
        "ratio": timing["ratio"],
        "MB_official": peak_megabytes(other, device),
        "MB_ours": peak_megabytes(own, device),
    }


def alone(own: Callable[[], Tensor], batch: int, repeats: int, device: str) -> Row:
    own()
    median = statistics.median(seconds(own, device) for _ in range(repeats))
    return {"s_per_image_ours": median / batch, "MB_ours": peak_megabytes(own, device)}

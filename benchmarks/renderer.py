"""Compare the fused renderer with its twin: time and peak memory, forward alone and forward with backward."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Row, side_by_side
from dreamportrait.core.timing import kernel_seconds, peak_megabytes
from dreamportrait.eg3d.folder import load_generator
from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.rays import rays_from_label
from eg3d_ops.planes import Decoder
from eg3d_ops.render_rays import render_rays

# Found without the index of shipped models, which needs more packages than the ops.
MINI = Path(__file__).parents[1] / "dreamportrait/mini/weights/eg3d"


def camera_rays(side: int, device: str) -> tuple[Tensor, Tensor]:
    """Return ray origins and directions, [1, side * side, 3] each, of a frontal camera with FFHQ's field of view."""
    centre = (torch.arange(side, device=device) + 0.5) / side - 0.5
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    directions = torch.stack([x / 4.2647, -y / 4.2647, -torch.ones_like(x)], -1).reshape(1, -1, 3)
    origins = torch.tensor([0.0, 0.0, 2.7], device=device).expand_as(directions)
    return origins.contiguous(), torch.nn.functional.normalize(directions, dim=-1)


def official_scene(device: str) -> tuple[Tensor, Decoder]:
    """Return smooth random planes 256 x 256 x 32 and a random decoder 32 -> 64 -> 33, the released sizes."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(3, 32, 32, 32, generator=g)
    planes = torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")[None] * 2
    shapes = [(64, 32), (64,), (33, 64), (33,)]
    parts = [torch.randn(shape, generator=g) / shape[-1] ** 0.5 for shape in shapes]
    return planes.to(device), Decoder(*(part.to(device) for part in parts))


def pass_of(impl: str, side: int, device: str, backward: bool) -> Callable[[], object]:
    planes, decoder = official_scene(device)
    origins, directions = camera_rays(side, device)
    tensors = [planes, *decoder]
    for tensor in tensors:
        tensor.requires_grad_(backward)

    def run() -> object:
        out = render_rays(
            planes, origins, directions, decoder, plane_axes="official", ray_start=2.25, ray_end=3.3, impl=impl
        )
        return torch.autograd.grad(out.features.sum() + out.depth.sum(), tensors) if backward else out

    return run


def pass_of_faces(impl: str, device: str) -> Callable[[], object]:
    """Return forward and backward of faces of mini/eg3d. Unlike random scenes, they have empty space around them.

    The loss is a mean over all pixels, as in training, so that the gradient of a single ray is small.
    """
    generator = load_generator(MINI).to(device).requires_grad_(False)
    c = generator.config
    cameras = orbit([-20.0, -10.0, 0.0, 10.0], 0.0, c.camera_radius, c.camera_pivot, device)
    z = torch.randn(len(cameras), c.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        planes = generator.synthesize_planes(generator.map(z, cameras))
    tensors = [planes.requires_grad_(), *generator.decoder.requires_grad_().parameters()]
    rays = rays_from_label(cameras, c.render_resolution)

    def run() -> object:
        features = generator.render_rays(planes, *rays, impl=impl).features
        return torch.autograd.grad(features.square().mean(), tensors)

    return run


def run(device: str = "cpu", repeats: int = 5) -> list[Row]:
    rows: list[Row] = []
    for side, name in ((64, "64x64 rays"), (128, "128x128 rays")):
        for backward in (False, True):
            reference, compiled = (pass_of(impl, side, device, backward) for impl in ("reference", "compiled"))
            compiled()  # loads libraries and starts threads, so that neither side's memory includes them
            memory = {
                f"MB_{n}": peak_megabytes(f, device) for n, f in (("compiled", compiled), ("reference", reference))
            }
            what = {
                "op": "render_rays",
                "case": f"{name}, 48+48 samples, {'forward+backward' if backward else 'forward'}",
            }
            timing = side_by_side(reference, compiled, repeats, device, clock=kernel_seconds)
            rows.append(what | timing | memory | {"memory_ratio": memory["MB_reference"] / memory["MB_compiled"]})
    what = {"op": "render_rays", "case": "4 faces of mini/eg3d, 64x64 rays, 12+12 samples, forward+backward"}
    reference, compiled = (pass_of_faces(impl, device) for impl in ("reference", "compiled"))
    rows.append(what | side_by_side(reference, compiled, repeats, device, clock=kernel_seconds))
    return rows

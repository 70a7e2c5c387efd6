"""Scenes for the renderer, and comparisons of its results."""

import torch

from eg3d_ops.planes import Decoder
from eg3d_ops.render_rays import render_rays

OUTPUTS = ("features", "depth", "weights", "d_planes", "d_w1", "d_b1", "d_w2", "d_b2")
XYZ = ((0, 1), (1, 2), (2, 0))
# Name -> sizes of the scene, options of the call.
CASES = {
    "official sizes": ({}, {}),
    "no importance samples": ({}, {"num_fine": 0}),
    "odd sizes": (
        {"batch": 2, "rays": 33, "channels": 5, "size": (7, 11), "hidden": 20, "colors": 3},
        {"num_coarse": 7, "num_fine": 5},
    ),
    "wide decoder, one plane": (
        {"planes": 1, "channels": 40, "hidden": 70, "colors": 33},
        {"num_coarse": 12, "num_fine": 13, "disparity": True, "white_back": True},
    ),
    "fewest samples": ({"rays": 5}, {"num_coarse": 4, "num_fine": 1}),
    "more samples than a tile": ({"rays": 3}, {"num_coarse": 70, "num_fine": 61}),
    "several rays per tile, 8 x 8 blocks": ({"rays": 256}, {"num_coarse": 6, "num_fine": 6}),
    "opaque": ({"density": 100.0}, {}),
    "small box": ({}, {"box_warp": 0.3, "ray_start": "auto", "ray_end": "auto"}),
    "one ray": ({"rays": 1}, {}),
    "far before near": (
        {"rays": 7},
        {"num_fine": 0, "ray_start": torch.full((1, 7, 1), -1.0), "ray_end": torch.full((1, 7, 1), -2.0)},
    ),
}


def scene(batch=1, rays=64, planes=3, channels=32, size=(24, 24), hidden=64, colors=32, density=3.0, seed=0):
    """Return random planes, a random decoder and rays through the box."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    towards = normal(batch, rays, 3) * 0.25 + torch.tensor([0.0, 0.0, -2.7])
    w2 = normal(1 + colors, hidden) / hidden**0.5
    w2[0] *= density  # how quickly rays become opaque
    return {
        "planes": normal(batch, planes, channels, *size),
        "origins": torch.tensor([0.0, 0.0, 2.7]).expand(batch, rays, 3),
        "directions": torch.nn.functional.normalize(towards, dim=-1),
        "decoder": Decoder(
            normal(hidden, channels) / channels**0.5, normal(hidden) * 0.1, w2, normal(1 + colors) * 0.1
        ),
        "plane_axes": XYZ[:planes],
        "ray_start": 2.25,
        "ray_end": 3.3,
    }


def outputs_and_gradients(scene, impl, dtype=torch.float32, device="cpu", **options):
    """Return the three outputs and the gradients of a random projection of them, by the names in OUTPUTS.

    Planes of 16 bits stay so, unless the arithmetic is float64: then they are only rounded.
    """
    scene = {**scene, **options}
    stored = scene["planes"].dtype if dtype == torch.float32 else dtype
    moved = {k: v.to(device, dtype) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    planes = moved.pop("planes").to(stored).detach().requires_grad_()
    decoder = Decoder(*(part.to(device, dtype).detach().requires_grad_() for part in moved.pop("decoder")))
    if isinstance(moved.get("draws"), tuple):
        moved["draws"] = tuple(u.to(device, dtype) for u in moved["draws"])
    out = render_rays(planes, decoder=decoder, impl=impl, **moved)
    g = torch.Generator().manual_seed(99)
    loss = sum((part * torch.randn(part.shape, generator=g).to(device, dtype)).sum() for part in out)
    gradients = torch.autograd.grad(loss, [planes, *decoder])
    return dict(zip(OUTPUTS, [part.detach() for part in (*out, *gradients)], strict=True))


def distance(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def assert_as_good_as_twin(compiled, twin, exact):
    """Assert that the compiled result differs from the float64 one by at most a few times the twin's float32 error.

    Rounding moves importance samples, and white-noise planes turn that into differences far above 1e-7. The amount
    depends on the scene, so the twin's own error sets the limit. Measured ratios are below 3. The factor 8 allows for
    chance, and 2e-6 for scenes in which the twin is nearly exact. Any wrong formula is off by 1e-2 or more.
    """
    for name in OUTPUTS:
        limit = 8 * distance(twin[name], exact[name]) + 2e-6
        assert distance(compiled[name], exact[name]) <= limit, name


def random_draws(scene, coarse, fine):
    g = torch.Generator().manual_seed(5)
    shape = scene["origins"].shape[:2]
    return torch.rand(*shape, coarse, generator=g), torch.rand(*shape, fine, generator=g)

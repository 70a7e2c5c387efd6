"""Small scenes for the renderer in float64, and functions that run the emulated op on them in float32."""

from typing import Any

import torch
from torch import Tensor

from eg3d_ops.planes import Decoder


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


AXES = ((0, 1), (0, 2), (2, 0), (1, 2))


def scene(
    planes: int = 3,
    channels: int = 5,
    size: tuple[int, int] = (6, 7),
    rays: int = 5,
    hidden: int = 9,
    colors: int = 3,
    coarse: int = 7,
    fine: int = 6,
    draws: bool = False,
    disparity: bool = False,
    far: float = 1.6,
    contrast: float = 2.0,  # of the planes
    density: float = 0.0,  # added to every density; 60: opaque from the first sample on, -40: empty
) -> dict[str, Any]:
    """Return the arguments of `_render_rays` for a batch of two scenes. Some of the rays miss the box."""
    n = 2
    towards = normal(n, rays, 3, seed=2) * 0.3 + torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    w2, b2 = normal(1 + colors, hidden, seed=6) / hidden**0.5, normal(1 + colors, seed=7) * 0.3
    b2[0] += density
    return {
        "planes": normal(n, planes, channels, *size) * contrast,
        "origins": normal(n, rays, 3, seed=1) * 0.1 + torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64),
        "directions": torch.nn.functional.normalize(towards, dim=-1),
        "near": 0.5 + normal(n, rays, 1, seed=3) * 0.1,
        "far": torch.full((n, rays, 1), far, dtype=torch.float64),
        "decoder": Decoder(normal(hidden, channels, seed=4) / channels**0.5, normal(hidden, seed=5) * 0.3, w2, b2),
        "coarse_draws": uniform(n, rays, coarse, seed=8) if draws else None,
        "fine_draws": uniform(n, rays, fine, seed=9) if draws and fine else None,
        "axes": AXES[:planes],
        "box_warp": 0.9,
        "num_coarse": coarse,
        "num_fine": fine,
        "disparity": disparity,
    }


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCENES: dict[str, dict[str, Any]] = {
    "plain": {},
    "random draws": {"draws": True},
    "disparity": {"disparity": True},
    "coarse only": {"fine": 0},
    "coarse only, random draws": {"fine": 0, "draws": True},
    "far before near": {"fine": 0, "far": 0.2},
    "far before near, fine": {"far": 0.2},
    "opaque": {"density": 60.0, "rays": 9},
    "contrasty": {"contrast": 40.0},
    "empty and opaque": {"density": -25.0, "contrast": 100.0, "rays": 9, "coarse": 20, "fine": 20},
    "empty": {"density": -40.0},
    "two samples": {"coarse": 2, "fine": 0},
    "four samples": {"coarse": 4, "fine": 1},
    "more fine than coarse": {"coarse": 5, "fine": 40, "draws": True},
    "whole tiles": {"coarse": 32, "fine": 32},
    "one plane": {"planes": 1, "channels": 1, "hidden": 1, "colors": 1},
    "four planes": {"planes": 4, "channels": 8, "hidden": 16, "colors": 32},
    "more rays than warps": {"rays": 21},
    "one pixel": {"size": (1, 1)},
    "official decoder": {"channels": 32, "hidden": 64, "colors": 32, "coarse": 48, "fine": 48, "rays": 2},
    "largest": {"channels": 32, "hidden": 64, "colors": 32, "coarse": 130, "fine": 126, "rays": 1, "draws": True},
}


def forward(ops: Any, s: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    single = {k: v.float() for k, v in s.items() if isinstance(v, Tensor)}
    return ops.render_rays(
        *(s["planes"].to(dtype), single["origins"], single["directions"], single["near"][..., 0]),
        *(single["far"][..., 0], *(part.float() for part in s["decoder"])),
        *(single.get("coarse_draws"), single.get("fine_draws"), flat(s["axes"]), s["box_warp"]),
        *(s["num_coarse"], s["num_fine"], s["disparity"]),
    )


def backward(
    ops: Any, s: dict[str, Any], cotangents: list[Tensor], depths: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    return ops.render_rays_backward(
        *(t.float() for t in cotangents),
        s["planes"].to(dtype),
        *(s["origins"].float(), s["directions"].float(), *(part.float() for part in s["decoder"]), depths.float()),
        *(flat(s["axes"]), s["box_warp"]),
    )


def flat(axes: tuple[tuple[int, int], ...]) -> list[int]:
    return [axis for pair in axes for axis in pair]


def random_cotangents(s: dict[str, Any]) -> list[Tensor]:
    n, r, _ = s["origins"].shape
    colors = s["decoder"].w2.shape[0] - 1
    return [normal(n, r, colors, seed=20), normal(n, r, seed=21), normal(n, r, seed=22)]

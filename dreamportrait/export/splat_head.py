"""Turns surface points into Gaussians: a fixed rule, and a small network that corrects it.

The rule makes flat, opaque discs as wide as the spacing of the points. The network corrects position, size, rotation,
colour and opacity within limits. It reads what the planes and the pictures say
about a point in units of pixels, so it also fits other generators of the same shape as the one it was trained for.
"""

import copy
import logging
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.splat_points import FEATURES, SurfacePoints
from dreamportrait.weights import single
from dreamportrait.weights.folder import check_tensors
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import locate
from dreamportrait.weights.seals import seal, verify

SHIPPED = "mini/splats"
RECIPE = "python -m dreamportrait.mini.splats --model MODEL --work WORK --out FOLDER"

FLAT, THICK = 0.7, 0.3  # standard deviations along the surface and across it, in spacings
OPACITY = 0.95
OFFSET = 2.0  # spacings: how far the network may move a point along each axis
STRETCH = 1.5  # how much it may change the logarithm of a size
TURN = 0.5  # radians, nearly: how far it may turn a splat around each axis
TINT = 0.5  # how much it may change a colour
OUTPUTS = 13

_log = logging.getLogger(__name__)


class Gaussians(NamedTuple):
    """Splats in the world's units."""

    positions: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] standard deviations
    rotations: Tensor  # [N, 4] unit quaternions w, x, y, z
    colors: Tensor  # [N, 3]
    opacities: Tensor  # [N]


class SplatHead(nn.Module):
    """The network. It starts as the rule."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.made_for: str | None = None  # hash of the generator that it was trained for. None = unknown
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.first, self.second = nn.Linear(FEATURES, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, OUTPUTS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:  # [N, F] -> [N, 13]
        x = ((features - self.mean) / self.deviation).clamp(-5, 5)
        return self.last(F.silu(self.second(F.silu(self.first(x)))))


def gaussians(points: SurfacePoints, head: SplatHead | None) -> Gaussians:
    """Return one splat for each point. Without a head, only the rule acts."""
    if head is None:
        out = points.positions.new_zeros(len(points), OUTPUTS)
    else:
        out = head(points.features)
    offset, stretch, turn, tint = torch.tanh(out).split([3, 3, 3, 3, 1], 1)[:4]
    spacing = points.spacing[:, None]
    moved = points.frames @ (OFFSET * spacing * offset)[..., None]
    sizes = spacing * spacing.new_tensor([FLAT, FLAT, THICK]) * torch.exp(STRETCH * stretch)
    half_turn = torch.cat([torch.ones_like(spacing), 0.5 * TURN * turn], 1)
    rotations = multiply(quaternions(points.frames), F.normalize(half_turn, dim=1))
    usual = torch.logit(OPACITY * points.opacity.clamp(min=1e-3))
    return Gaussians(
        points.positions + moved[..., 0],
        sizes,
        rotations,
        points.colors + TINT * tint,
        torch.sigmoid(usual + out[:, 12]),
    )


def quaternions(rotations: Tensor) -> Tensor:  # [N, 3, 3] -> [N, 4] w, x, y, z of length 1
    """Convert rotation matrices. Of four formulas, the one with the largest divisor is used."""
    m = rotations.flatten(1)  # 0 1 2 / 3 4 5 / 6 7 8
    diagonal = m[:, [0, 4, 8]]
    trace = diagonal.sum(1, keepdim=True)
    squares = torch.cat([1 + trace, 1 + 2 * diagonal - trace], 1)  # four times the squares of w, x, y, z
    a, b, c = m[:, 7] - m[:, 5], m[:, 2] - m[:, 6], m[:, 3] - m[:, 1]  # 4 w x, 4 w y, 4 w z
    d, e, f = m[:, 1] + m[:, 3], m[:, 2] + m[:, 6], m[:, 5] + m[:, 7]  # 4 x y, 4 x z, 4 y z
    w, x, y, z = squares.unbind(1)
    rows = torch.stack([torch.stack(row, 1) for row in ((w, a, b, c), (a, x, d, e), (b, d, y, f), (c, e, f, z))], 1)
    best = squares.argmax(1)
    return F.normalize(rows[torch.arange(len(m), device=m.device), best], dim=1)


def multiply(a: Tensor, b: Tensor) -> Tensor:  # [N, 4] twice -> [N, 4]
    """Multiply quaternions: first the rotation b, then a."""
    aw, ax, ay, az = a.unbind(1)
    bw, bx, by, bz = b.unbind(1)
    parts = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return torch.stack(parts, 1)


def save_splat_head(head: SplatHead, folder: Path, generator: TriPlaneGenerator, **notes: Any) -> None:
    """Write and seal the folder of a network that was trained for this generator."""
    about = {"generator": _shape(generator), "model_sha256": weights_hash(generator)}
    single.write(folder, head.state_dict(), {**about, **notes})
    seal(folder)


def load_splat_head(folder: str | Path) -> SplatHead:
    """Load a network that save_splat_head wrote, after checking that the folder is as it was sealed."""
    return _read(Path(folder))[0]


def find_splat_head(generator: TriPlaneGenerator) -> SplatHead | None:
    """Return the network that comes with the package if the generator has the shape it was trained for, else None."""
    head, shape = _shipped()
    if shape == _shape(generator):
        return copy.deepcopy(head).to(next(generator.parameters()).device)
    _warn_once(
        "no network corrects the splats of this model: the one that comes with the package was trained for other "
        f"resolutions. Its splats follow a rule alone, which costs some decibels; {_remedy()}"
    )
    return None


def check_made_for(head: SplatHead, generator: TriPlaneGenerator) -> None:
    """Warn if a network was trained for another generator than this one."""
    if head.made_for is None or head.made_for == (digest := weights_hash(generator)):
        return
    _warn_once(
        f"the network that corrects splats was trained for the model {head.made_for[:8]}, not for this one "
        f"({digest[:8]}), so splats may be less like its pictures; {_remedy()}"
    )


def _remedy() -> str:
    return (
        f"`{RECIPE}` trains one for it. Then use `dreamportrait splats --corrections FOLDER`, or "
        "corrections=load_splat_head(FOLDER)"
    )


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)


@cache
def _shipped() -> tuple[SplatHead, dict[str, Any]]:
    return _read(locate(SHIPPED))


def _read(folder: Path) -> tuple[SplatHead, dict[str, Any]]:
    """Return the network and the shape of the generator that it was trained for."""
    verify(folder, f"copy the folder again, or train the network anew: `{RECIPE}`")
    tensors, config = single.read(folder)
    if "first.bias" not in tensors or not isinstance(shape := config.get("generator"), dict):
        raise WeightsError(f"{folder} holds no network that corrects splats; name a folder that `{RECIPE}` wrote")
    head = SplatHead(len(tensors["first.bias"]))
    check_tensors(head, tensors, str(folder))
    head.load_state_dict(tensors)
    head.made_for = config.get("model_sha256")
    return head.eval().requires_grad_(False), shape


def _shape(generator: TriPlaneGenerator) -> dict[str, Any]:
    """Return the settings that decide how pictures relate to points."""
    c = generator.config
    names = ("image_resolution", "render_resolution", "plane_resolution", "ray_start", "ray_end", "box_warp")
    return {name: getattr(c, name) for name in names}

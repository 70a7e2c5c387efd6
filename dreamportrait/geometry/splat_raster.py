"""Draws Gaussian splats in plain PyTorch, with gradients: for training and for measuring on a CPU.

A splat covers the pixels where its opacity reaches 1/255. These pairs of splat and pixel are sorted by pixel, with
the nearest splat first, and composited. So memory and time grow with the covered area, not with splats times pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamportrait.geometry.cameras import check_label
from eg3d_ops._checks import check_int, check_shape, check_tensor

FAINTEST, DENSEST = 1 / 255, 0.99  # opacities of a splat at a pixel: less is left out, more is cut, as 3DGS does
NEAREST = 0.01  # distance from the camera; nearer splats are left out
VIEWERS_BLUR = 0.3  # pixels^2: what viewers of Gaussian splatting add to the variance of every splat on the screen


class SplatPicture(NamedTuple):
    colors: Tensor  # [3, R, R] composited over black, row 0 is the top
    opacity: Tensor  # [1, R, R]


class _Footprints(NamedTuple):
    """Splats on the screen. Lengths are pixels."""

    centers: Tensor  # [N, 2] x to the right, y down, the corner of the picture is 0
    covariance: Tensor  # [N, 3] xx, xy, yy
    depth: Tensor  # [N] along the camera's axis


def draw_splats(
    positions: Tensor,  # [N, 3]
    scales: Tensor,  # [N, 3] standard deviations
    rotations: Tensor,  # [N, 4] unit quaternions w, x, y, z
    colors: Tensor,  # [N, 3]
    opacities: Tensor,  # [N] in 0 .. 1
    camera: Tensor,  # [25]
    resolution: int,
    blur: float = VIEWERS_BLUR,  # pixels^2, added to the variances on the screen
) -> SplatPicture:
    """Draw splats as one camera sees them. All lengths are in the world's units."""
    size = check_int("resolution", resolution, 1)
    camera = check_label(camera[None])[0]
    count = len(check_tensor("positions", positions))
    for name, value, shape in (
        ("positions", positions, [count, 3]),
        ("scales", scales, [count, 3]),
        ("rotations", rotations, [count, 4]),
        ("colors", colors, [count, 3]),
        ("opacities", opacities, [count]),
    ):
        check_shape(name, check_tensor(name, value), shape, str(shape).replace(str(count), "N", 1))
    seen = _project(positions, scales, rotations, camera.to(positions), size, blur)
    splat, pixel = _pairs(seen, opacities, size)
    offset = torch.stack([pixel % size, pixel // size], 1) + 0.5 - seen.centers[splat]  # [P, 2]
    xx, xy, yy = seen.covariance[splat].unbind(1)
    x, y = offset.unbind(1)
    distance = (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)  # squared, in standard deviations
    alpha = (opacities[splat] * torch.exp(-0.5 * distance)).clamp(max=DENSEST)
    weights = alpha * _transmittance(alpha, pixel)
    flat = weights.new_zeros(size * size, 4)
    values = torch.cat([colors, torch.ones_like(colors[:, :1])], 1)[splat] * weights[:, None]
    flat = flat.index_add(0, pixel, values).T.reshape(4, size, size)
    return SplatPicture(flat[:3], flat[3:])


def rotation_matrices(quaternions: Tensor) -> Tensor:  # [N, 4] w, x, y, z of length 1 -> [N, 3, 3]
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def _project(
    positions: Tensor, scales: Tensor, rotations: Tensor, camera: Tensor, size: int, blur: float
) -> _Footprints:
    """Approximate the perspective picture of each splat by a Gaussian, linearising at its centre (EWA splatting)."""
    matrix = camera[:16].reshape(4, 4)
    fx, skew, cx, fy, cy = camera[[16, 17, 18, 20, 21]].unbind()
    x, y, depth = ((positions - matrix[:3, 3]) @ matrix[:3, :3]).unbind(1)  # [N] each, in the camera's axes
    z = depth.clamp(min=NEAREST)
    centers = torch.stack([(fx * x + skew * y) / z + cx, fy * y / z + cy], 1) * size
    zero = torch.zeros_like(z)
    slopes = [fx / z, skew / z, -(fx * x + skew * y) / z**2, zero, fy / z, -fy * y / z**2]
    jacobian = torch.stack([slope.expand_as(z) for slope in slopes], 1).reshape(-1, 2, 3) * size
    axes = rotation_matrices(rotations) * scales[:, None]  # [N, 3, 3] columns are the splat's axes
    spread = jacobian @ (matrix[:3, :3].T @ axes)  # [N, 2, 3]
    covariance = spread @ spread.mT
    xx, xy, yy = covariance[:, 0, 0] + blur, covariance[:, 0, 1], covariance[:, 1, 1] + blur
    return _Footprints(centers, torch.stack([xx, xy, yy], 1), depth)


@torch.no_grad()
def _pairs(seen: _Footprints, opacities: Tensor, size: int) -> tuple[Tensor, Tensor]:  # [P], [P]
    """Return the splats and pixels that meet, sorted by pixel and then by depth, the nearest first."""
    visible = (seen.depth > NEAREST) & (opacities >= FAINTEST)
    reach = 2 * torch.log((opacities / FAINTEST).clamp(min=1))  # squared, in standard deviations
    half = (reach[:, None] * seen.covariance[:, [0, 2]]).sqrt()  # [N, 2] of the box around the ellipse
    first = (seen.centers - half - 0.5).ceil().clamp(0, size)  # the first pixel whose centre is in the box
    after = ((seen.centers + half - 0.5).floor() + 1).clamp(0, size)
    span = ((after - first).clamp(min=0) * visible[:, None]).long()
    near = seen.depth.argsort()
    counts = span.prod(1)[near]  # [N]
    splat = near.repeat_interleave(counts)
    within = torch.arange(len(splat), device=splat.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    wide = span[splat, 0]
    x, y = first[splat, 0].long() + within % wide, first[splat, 1].long() + within // wide
    dx, dy = x + 0.5 - seen.centers[splat, 0], y + 0.5 - seen.centers[splat, 1]
    xx, xy, yy = seen.covariance[splat].unbind(1)
    inside = yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy <= reach[splat] * (xx * yy - xy * xy)
    splat, pixel = splat[inside], (y * size + x)[inside]
    order = _stable_order(pixel, size * size)
    return splat[order], pixel[order]


def _stable_order(keys: Tensor, count: int) -> Tensor:
    """Return the order that sorts keys below `count`; equal keys stay in their order."""
    if keys.device.type == "cpu" and count <= 2**16:  # NumPy sorts numbers of 16 bits by radix: five times faster
        return torch.from_numpy(np.argsort(keys.numpy().astype(np.uint16), kind="stable"))
    return keys.argsort(stable=True)


def _transmittance(alpha: Tensor, pixel: Tensor) -> Tensor:  # [P]
    """Return the share of light that passes all nearer splats of the same pixel. Pairs are sorted by pixel."""
    passed = torch.log1p(-alpha.double())  # in double, because sums run over all pairs of the picture
    before = passed.cumsum(0) - passed
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    start = torch.where(first, torch.arange(len(pixel), device=pixel.device), 0).cummax(0).values
    return torch.exp(before - before[start]).to(alpha.dtype)

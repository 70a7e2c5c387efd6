"""Heads that are balls, whose surface is known."""

from dataclasses import replace

import torch
from tiny_portraits import GENERATOR, plain

from dreamportrait.eg3d.planes import Planes

RADIUS = 0.2


def balls(count: int = 1, density: float = 1.0) -> Planes:
    """Return heads that are balls: dense within RADIUS of the pivot, clear outside. density=0: clear everywhere."""
    generator = plain(
        replace(GENERATOR, camera_pivot=(0.0, 0.0, 0.0), plane_axes="xy_yz_zx", num_coarse=32, num_fine=32)
    )
    steps = (torch.arange(32) + 0.5) / 32 - 0.5
    squares = steps[:, None] ** 2 + steps**2  # of the distance in a plane; three planes together count each axis twice
    planes = 0.1 * torch.randn(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    # The mean over planes is 1 + 2/3 (RADIUS^2 - r^2); the decoder takes the 1 away. Outside the planes it is 0: clear.
    planes[:, :, 0] = 1 + 2 / 3 * RADIUS**2 - squares
    first, second = generator.decoder.net[0], generator.decoder.net[2]
    with torch.no_grad():
        first.weight.copy_(torch.eye(8, 4) / first.weight_gain)
        first.weight[0] *= 30_000 * density
        first.bias[0] = -30_000 * density / first.bias_gain
        second.weight[0] = torch.eye(8)[0] / second.weight_gain
        second.weight[1:, 0] = 0
        second.bias[0] = -5.0
    return Planes(generator, planes, torch.zeros(count, generator.num_ws, generator.config.w_dim))

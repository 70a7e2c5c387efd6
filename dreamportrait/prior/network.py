"""Networks on vectors: a plain one, and a residual one that is conditioned by another vector.

The latter is the velocity of the prior, and the mapper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 5.0  # standard deviations


def perceptron(size: int, out: int, width: int, dropout: float) -> nn.Sequential:
    """Return a network of two hidden layers on vectors of `size`."""
    return nn.Sequential(
        nn.Linear(size, width),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(width, out),
    )


class ConditionedNet(nn.Module):
    """Input layer, residual blocks, output layer. The output is zero at initialisation."""

    def __init__(self, size: int, condition: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Linear(size, width)
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # [N, size], [N, condition] -> [N, size]
        h, c = self.enter(x), self.condition(condition)  # [N, width] each
        for block in self.blocks:
            h = block(h, c)
        out: Tensor = self.leave(F.layer_norm(h, h.shape[1:]))
        return out


class Block(nn.Module):
    """Two layers around which the input passes unchanged. The condition shifts, scales and gates.

    The gate is closed at initialisation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:  # [N, width] twice -> [N, width]
        shift, scale, gate = self.modulation(c).chunk(3, 1)
        y = F.layer_norm(h, h.shape[1:]) * (1 + scale) + shift
        return h + gate * self.down(F.silu(self.up(y)))


class Standard(nn.Module):
    """Standardise features with the mean and the standard deviation of a sample, and limit what lies far outside.

    Some features of a picture tower are zero in nearly every picture. Divided by their tiny deviation, they would be
    thousands in the others.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:  # [N, size]
        self.mean.copy_(x.mean(0))
        deviation = x.std(0)
        self.deviation.copy_(deviation.clamp(min=max(0.1 * float(deviation.median()), 1e-6)))

    def forward(self, x: Tensor) -> Tensor:  # [N, size] -> [N, size]
        return ((x - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)

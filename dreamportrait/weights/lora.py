"""Low-rank deltas of weights (LoRA, Hu et al. 2021): W + up down, of which only up and down are trained.

guidance/fake_score.py     adds them to the outputs of attention layers of a shared UNet
systems/freestyle          adds them to the weights of a network, as a style that can be scaled and mixed
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """The delta of one matrix. It is zero at the start."""

    def __init__(self, outputs: int, inputs: int, rank: int, numbers: torch.Generator) -> None:
        super().__init__()
        down = torch.randn(rank, inputs, generator=numbers) / inputs**0.5
        self.down = nn.Parameter(down)  # [rank, in], float32 whatever the precision of the matrix is
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def product(self) -> Tensor:  # [out, in]
        return self.up @ self.down

    def apply_to(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out]
        """Return up(down(x)), without computing the product of both."""
        return x.float() @ self.down.T @ self.up.T


class LowRankDeltas(nn.Module):
    """The deltas of several weights [out, in, ...] by their names. A convolution's taps count as inputs."""

    def __init__(self, shapes: Mapping[str, Iterable[int]], rank: int, seed: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank}: must be at least 1")
        numbers = torch.Generator().manual_seed(seed)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.parts = nn.ModuleDict()
        for name, (outputs, *inputs) in self.shapes.items():
            self.parts[name.replace(".", "-")] = LowRank(outputs, math.prod(inputs), rank, numbers)

    def forward(self) -> dict[str, Tensor]:
        """Return the deltas in the shapes of the weights."""
        found = {}
        for name, shape in self.shapes.items():
            part = self.parts[name.replace(".", "-")]
            assert isinstance(part, LowRank)
            found[name] = part.product().reshape(shape)
        return found

    def factors(self) -> dict[str, Tensor]:
        """Return NAME.down [rank, in] and NAME.up [out, rank] of each weight."""
        parts = {name: self.parts[name.replace(".", "-")] for name in self.shapes}
        return {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}

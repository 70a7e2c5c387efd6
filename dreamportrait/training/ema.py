"""A running average of a module's weights: what is rendered and saved, while the module itself is trained."""

import copy
from typing import Any

import torch
from torch import nn


class Ema:
    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, beta: float) -> None:
        """average <- beta * average + (1 - beta) * weights; buffers are copied."""
        for average, weight in zip(self.module.parameters(), source.parameters(), strict=True):
            average.copy_(weight.lerp(average, beta))
        for kept, value in zip(self.module.buffers(), source.buffers(), strict=True):
            kept.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return self.module.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.module.load_state_dict(state_dict)


def half_life(batch: int, images: float) -> float:
    """The beta with which a weight's share halves after that many images."""
    return float(0.5 ** (batch / max(images, 1e-8)))

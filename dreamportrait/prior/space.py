"""Coordinates of W in which distances mean visible differences.

w of a pretrained generator varies along few of its dimensions. In the principal directions, each divided by its
standard deviation, common differences between faces have length 1. A small constant under the root keeps directions
that hardly vary small, because steps along them leave the faces that the generator can draw.
"""

import torch
from torch import Tensor, nn

FLOOR = 0.02  # share of the mean variance, added to each variance


class WSpace(nn.Module):
    """Map w to coordinates x and back. The buffers are those of the identity until `fit` sets them."""

    mean: Tensor  # [w_dim]
    directions: Tensor  # [w_dim, w_dim], one per column
    scale: Tensor  # [w_dim] standard deviation along each direction

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(w_dim))
        self.register_buffer("directions", torch.zeros(w_dim, w_dim).fill_diagonal_(1))
        self.register_buffer("scale", torch.ones(w_dim))

    @torch.no_grad()
    def fit(self, w: Tensor) -> "WSpace":  # [N, w_dim]
        """Set mean, directions and scales from a sample of w. Directions in which the sample is flat get the floor."""
        if len(w) < 2:
            raise ValueError(f"{len(w)} samples of w: a covariance needs at least 2, and thousands to be exact")
        if not w.isfinite().all():
            raise ValueError("w contains NaN or infinite numbers; the generator that it comes from is damaged")
        variances, directions = torch.linalg.eigh(torch.cov(w.double().T))
        floor = FLOOR * variances.mean()
        self.mean.copy_(w.double().mean(0))
        self.directions.copy_(directions)
        self.scale.copy_((variances.clamp(min=0) + floor).sqrt())
        return self

    def enter(self, w: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
        """Return the coordinates x of w."""
        return (w - self.mean) @ self.directions / self.scale

    def leave(self, x: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
        """Return w at the coordinates x."""
        return self.mean + self.step(x)

    def step(self, dx: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
        """Return the difference of w that a difference of coordinates means."""
        return (dx * self.scale) @ self.directions.T

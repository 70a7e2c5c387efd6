"""Gradient descent for the weights of a head, with decoupled decay.

Adam divides the gradient of each weight by its own size, so that all weights move equally fast, also those that the
prompt hardly concerns: red hair then colours the jaw, and a man's head grows tall. A floor under these sizes lets
weights with small gradients move less:

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        both divided by 1 - b^k at step k
    w <- (1 - lr decay) w - lr m / max(sqrt(v), floor sqrt(max v))

floor = 0 is Adam; with floor = 1, steps are in proportion to the gradient. A weight whose gradient always has the same
sign settles at 1 / decay at most.
"""

import torch
from torch import Tensor

BETAS = (0.9, 0.99)
_TINY = 1e-12


class Descent:
    """Moves `weights`, a leaf with a gradient, in place."""

    def __init__(
        self,
        weights: Tensor,
        *,
        lr: float,
        decay: float,
        floor: float = 1.0,  # share of the largest gradient
        coupled: bool = False,  # add decay * weights to the gradient instead, as a plain L2 loss does
        clip: float = float("inf"),  # largest norm of the gradient
        per: Tensor | None = None,  # gradients are divided by this
    ) -> None:
        self.weights, self.lr, self.decay = weights, lr, decay
        self.floor, self.coupled, self.clip, self.per = floor, coupled, clip, per
        self.m, self.v, self.k = torch.zeros_like(weights), torch.zeros_like(weights), 0

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """Descend the gradient of a loss."""
        (g,) = torch.autograd.grad(loss, self.weights)
        self.weights.grad = g
        torch.nn.utils.clip_grad_norm_([self.weights], self.clip, error_if_nonfinite=True)  # in place
        if self.per is not None:
            g = g / self.per
        if self.coupled:
            g = g + self.decay * self.weights
        b1, b2 = BETAS
        self.k += 1
        self.m.lerp_(g, 1 - b1)
        self.v.lerp_(g.square(), 1 - b2)
        size = (self.v / (1 - b2**self.k)).sqrt()
        size = size.clamp_min(max(self.floor * float(size.max()), _TINY))
        if not self.coupled:
            self.weights.mul_(1 - self.lr * self.decay)
        self.weights.sub_(self.lr * self.m / (1 - b1**self.k) / size)

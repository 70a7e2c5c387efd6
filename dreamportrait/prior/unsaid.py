"""The part of a change of w that texts say nothing about.

    here      meaning
    x         coordinates of the w of pictures, with covariance C
    text      features of the pictures' captions
    told      the best linear guess of x given text, with covariance T
    unsaid    the map OPEN C (T + OPEN C)^-1 of changes of x

Along a direction of which texts tell the share rho^2 of the variance, unsaid leaves OPEN / (rho^2 + OPEN) of a change:
everything where texts tell nothing, little where they tell much. In the miniature world, eye colour is of the first
kind, hats are of the second.
"""

import torch
from torch import Tensor

OPEN = 0.1  # share of the variance that texts tell of a direction, half of whose changes count as unsaid
_RIDGE = 1e-3  # relative to the variance of standardised features; features of texts may depend on each other
_FLOOR = 1e-3  # added to the variances of x, in which common differences have length 1


@torch.no_grad()
def unsaid(x: Tensor, text: Tensor) -> Tensor:  # [P, w_dim], [P, Ct] standardised -> [w_dim, w_dim]
    """Return the matrix that is applied to a change of x from the left."""
    x, text = x.double() - x.double().mean(0), text.double() - text.double().mean(0)
    count, flat = len(x), torch.eye(x.shape[1], dtype=torch.float64)
    ridge = _RIDGE * torch.eye(text.shape[1], dtype=torch.float64)
    told = text @ torch.linalg.solve(text.T @ text / count + ridge, text.T @ x / count)  # [P, w_dim]
    whole, explained = x.T @ x / count + _FLOOR * flat, told.T @ told / count
    # C (T + OPEN C)^-1 is the transpose of (T + OPEN C)^-1 C, as both are symmetric.
    return (OPEN * torch.linalg.solve(explained + OPEN * whole, whole).T).float()

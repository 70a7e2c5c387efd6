"""What a picture leaves open about its w.

The network from pictures to w learns squared errors, so it returns the mean of all w that fit a picture. Means lie
closer together than the generator's own w, and their faces are blander: half-transparent glasses, half-open mouths. A
flow that learns from means loses variety. The difference between a render's own w and the network's guess of it is such
an error; those of renders that look like a picture, added to the guess for the picture, turn the mean into a draw.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.prior.inversion import Inverter

ALIKE = 32  # renders whose errors a picture can get
_ROWS = 512  # compared at once


@dataclass(frozen=True)
class Guesses:
    """Coordinates that the network gives for the renders, and its errors."""

    x: Tensor  # [N, w_dim]
    error: Tensor  # [N, w_dim] the render's own coordinates minus x

    @classmethod
    @torch.no_grad()
    def of(cls, inverter: Inverter, features: Tensor, own: Tensor, held: int) -> "Guesses":  # [N, F], [N, w_dim]
        """Guess all renders. The first `held` are those that the network did not learn from.

        On the others its errors are smaller than on new pictures, so they are made as large as on the held ones.
        """
        x = torch.cat([inverter(part.float()) for part in features.split(_ROWS)])
        error = own - x
        seen, unseen = (part.square().mean().sqrt() for part in (error[held:], error[:held]))
        error[held:] *= unseen / seen.clamp(min=1e-8)
        return cls(x, error)

    def like(self, x: Tensor, count: int = ALIKE) -> Tensor:  # [P, w_dim] -> [P, count]
        """Return the numbers of the renders whose guesses are nearest to those of pictures."""
        count = min(count, len(self.x))
        return torch.cat([torch.cdist(part, self.x).topk(count, largest=False).indices for part in x.split(_ROWS)])

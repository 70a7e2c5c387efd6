"""Whether a picture is of a model's own world: how far its features lie from those of pictures that the model draws.

    world = OwnWorld(features_of_own_pictures(generator, see))
    world.strangeness(see(photo))                1 = as a usual picture of the model; above LIMIT, the photo is none

Features of the model's pictures lie near a space of few dimensions. The distance of a picture from this space is
compared with the distance of the model's own pictures from the space of others.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.images import as_saved

PICTURES, DIRECTIONS, FOLDS = 100, 32, 5
YAW, PITCH = 24.0, 8.0  # degrees; photos are taken from within
FARTHEST = 5.0  # standard deviations; what a feature counts at most
# Chosen on miniworld:validation, see mini/strangers.py: of its faces, at most one in a hundred is stranger.
LIMIT = 2.25


class OwnWorld:
    """The space of features of a model's own pictures."""

    def __init__(self, features: Tensor) -> None:  # [N, F]
        features = features.float().cpu()
        fold = torch.arange(len(features)) % FOLDS
        apart = [_fit(features[fold != k]).distance(features[fold == k]) for k in range(FOLDS)]
        self._usual, self._space = float(torch.cat(apart).median()), _fit(features)

    def strangeness(self, features: Tensor) -> Tensor:  # [M, F] -> [M]
        """Return the distances of pictures from the space, in multiples of what is usual for the model's own."""
        return self._space.distance(features.float().cpu()) / self._usual


class _Space(NamedTuple):
    mean: Tensor  # [F]
    deviation: Tensor  # [F]
    directions: Tensor  # [K, F] of length 1, at right angles

    def distance(self, features: Tensor) -> Tensor:  # [M, F] -> [M]
        x = self.standard(features)
        return (x - (x @ self.directions.T) @ self.directions).square().mean(1)

    def standard(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)


def _fit(features: Tensor) -> _Space:  # [N, F]
    deviation = features.std(0)
    # Some features are zero in nearly every picture; a tiny deviation would make them count alone.
    deviation = deviation.clamp(min=max(0.1 * float(deviation.median()), 1e-6))
    plain = _Space(features.mean(0), deviation, features.new_zeros(0, features.shape[1]))
    return plain._replace(directions=torch.linalg.svd(plain.standard(features), full_matrices=False).Vh[:DIRECTIONS])


@torch.no_grad()
def features_of_own_pictures(
    generator: TriPlaneGenerator,
    see: Callable[[Tensor], Tensor],  # [1, 3, R, R] in -1 .. 1 -> [1, F]
    report: Callable[[int], object],  # gets the number of pictures since the last call
) -> Tensor:  # [PICTURES, F]
    """Draw random identities from random cameras, and return the features of the pictures."""
    draw, config = torch.Generator().manual_seed(0), generator.config
    device, found = next(generator.parameters()).device, []
    front = config.around([0.0]).to(device)
    for _ in range(PICTURES):
        ws = generator.map(torch.randn(1, config.z_dim, generator=draw).to(device), front)
        yaw, pitch = (limit * (2 * float(torch.rand((), generator=draw)) - 1) for limit in (YAW, PITCH))
        camera = config.around([yaw], pitch).to(device)
        found.append(see(as_saved(generator.render(generator.synthesize_planes(ws), camera, w=ws).image)).cpu())
        report(1)
    return torch.cat(found)

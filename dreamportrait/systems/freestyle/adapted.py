"""Networks H with changed weights: low-rank deltas in training, and copies with a style's changes added."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamportrait.systems.freestyle.network import ImageToTriplane, Prediction
from dreamportrait.weights.lora import LowRankDeltas

# What a style changes: the last blocks of the encoder, the convolutions of the SMLs, and the nets of gamma and beta.
ADAPTED = ("encoder.code.", "encoder.enlarge.", "layers.")
KEPT = ".to_planes."  # planes keep the directions that the frozen decoder reads


def adapted_shapes(network: ImageToTriplane) -> dict[str, torch.Size]:
    """Return the shapes of the weights that get low-rank deltas, by name."""
    return {
        name: p.shape
        for name, p in network.named_parameters()
        if name.startswith(ADAPTED) and KEPT not in name and p.ndim == 4
    }


class LowRankNetwork(nn.Module):
    """H with low-rank deltas, of which only the deltas are trained and saved."""

    def __init__(self, base: ImageToTriplane, rank: int, seed: int) -> None:
        super().__init__()
        self.deltas = LowRankDeltas(adapted_shapes(base), rank, seed).to(next(base.parameters()).device)
        self._base = (base,)  # in a tuple, so that it is no part of this module

    def forward(self, front: Tensor) -> Prediction:
        (base,) = self._base
        weights = dict(base.named_parameters())
        changed = {name: weights[name].detach() + delta for name, delta in self.deltas().items()}
        frozen = {name: p.detach() for name, p in weights.items()}
        made: Prediction = functional_call(base, frozen | changed, (front,))
        return made


@torch.no_grad()
def with_changes(base: ImageToTriplane, changes: Sequence[tuple[float, Mapping[str, Tensor]]]) -> ImageToTriplane:
    """Return a copy of H with the sum of changes of its weights, each times its factor. A factor of 0 adds nothing."""
    made = deepcopy(base).eval().requires_grad_(False)
    weights = dict(made.named_parameters())
    for factor, deltas in changes:
        for name, delta in deltas.items() if factor else ():
            weights[name].add_(factor * delta.to(weights[name]))
    return made


@torch.no_grad()
def differences(tuned: ImageToTriplane, base: ImageToTriplane) -> dict[str, Tensor]:
    """Return what a tuning of all weights changed."""
    own = dict(base.named_parameters())
    return {name: p - own[name] for name, p in tuned.named_parameters()}

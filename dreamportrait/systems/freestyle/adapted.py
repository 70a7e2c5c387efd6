"""Networks H with changed weights: low-rank deltas in training, and copies with a style's changes added."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamportrait.systems.freestyle.network import OFFSET, ImageToTriplane, Prediction
from dreamportrait.systems.freestyle.smooth import coarse, enlarged
from dreamportrait.weights.lora import LowRankDeltas

# What a style changes: the last blocks of the encoder, and the layers (SMLs) with their nets of gamma and beta.
ADAPTED = ("encoder.code.", "encoder.enlarge.", "layers.")
OFFSET_RATE = 10.0  # how many times as fast as the deltas the offset learns


def adapted_shapes(network: ImageToTriplane) -> dict[str, torch.Size]:
    """Return the shapes of the weights that get low-rank deltas, by name."""
    return {name: p.shape for name, p in network.named_parameters() if name.startswith(ADAPTED) and p.ndim == 4}


class LowRankNetwork(nn.Module):
    """H with low-rank deltas and, with a stride, an offset of the planes; only these are trained and saved.

    The offset is the same for all pictures. What stands out from every head of a style, such as an elf's ears, grows in
    it within a few hundred steps, since each of its numbers takes full steps of Adam; in the deltas it hardly does.
    """

    def __init__(self, base: ImageToTriplane, rank: int, seed: int, stride: int = 0) -> None:
        super().__init__()
        device, c = next(base.parameters()).device, base.config
        self.deltas = LowRankDeltas(adapted_shapes(base), rank, seed).to(device)
        self.slow_offset: nn.Parameter | None = None
        if stride:
            side = coarse(c.plane_resolution, stride)
            self.slow_offset = nn.Parameter(torch.zeros(c.num_planes, c.plane_channels, side, side, device=device))
        self._base = (base,)  # in a tuple, so that it is no part of this module

    def forward(self, front: Tensor) -> Prediction:
        (base,) = self._base
        weights = dict(base.named_parameters())
        changed = {name: weights[name].detach() + delta for name, delta in self.deltas().items()}
        frozen = {name: p.detach() for name, p in weights.items()}
        offset = {name: enlarged(x, base.config.plane_resolution) for name, x in self.offset().items()}
        made: Prediction = functional_call(base, frozen | changed | offset, (front,))
        return made

    def offset(self) -> dict[str, Tensor]:  # [P, C, h, h]
        """Return the offset by its name, or nothing."""
        return {} if self.slow_offset is None else {OFFSET: OFFSET_RATE * self.slow_offset}


@torch.no_grad()
def with_changes(base: ImageToTriplane, changes: Sequence[tuple[float, Mapping[str, Tensor]]]) -> ImageToTriplane:
    """Return a copy of H with the sum of changes, each times its factor. A factor of 0 adds nothing.

    Changes are of weights, and of the offset of the planes [P, C, H, W].
    """
    made = deepcopy(base).eval().requires_grad_(False)
    weights = dict(made.named_parameters())
    for factor, deltas in changes:
        for name, delta in deltas.items() if factor else ():
            if name == OFFSET:
                more = factor * delta.to(made.deviation)
                made.offset = more if made.offset is None else made.offset + more
            else:
                weights[name].add_(factor * delta.to(weights[name]))
    return made


@torch.no_grad()
def differences(tuned: ImageToTriplane, base: ImageToTriplane) -> dict[str, Tensor]:
    """Return what a tuning of all weights changed."""
    own = dict(base.named_parameters())
    return {name: p - own[name] for name, p in tuned.named_parameters()}

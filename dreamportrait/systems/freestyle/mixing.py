"""Mixing of styles (figure 6 of the paper).

    w_s = sum over i of a_i w_s^i

w_s^i is the code of the front by the encoder of style i. The paper does not say whose modulation layers render the
mixed code: here the changes of the styles' weights are mixed with the same shares a_i.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.freestyle.adapted import with_changes
from dreamportrait.systems.freestyle.adapter import StyleAdapter, check_strength
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.network import Prediction
from eg3d_ops._checks import check_number


def shares(weights: Sequence[float]) -> list[float]:
    """Return weights divided by their sum. Raise ValueError for negative ones, or if all are 0."""
    numbers = [check_number("weight", weight) for weight in weights]
    if not numbers or min(numbers) < 0 or not sum(numbers):
        raise ValueError(f"weights {numbers}: must not be negative, and at least one must be above 0")
    return [number / sum(numbers) for number in numbers]


@torch.no_grad()
def mix(
    base: PictureTo3D,
    adapters: Sequence[StyleAdapter],
    weights: Sequence[float],
    fronts: Sequence[Tensor],  # [N, 3, R, R] for each adapter: what it reads, unedited or edited by its own style
    strength: float = 1.0,
) -> Planes:
    """Return N heads in a mixture of styles. With one weight above 0, they are those of that style, to the bit."""
    if not len(adapters) == len(weights) == len(fronts):
        raise ValueError(
            f"{len(adapters)} styles, {len(weights)} weights and {len(fronts)} fronts: give one weight and one front "
            "for each style"
        )
    strength = check_strength(strength)
    for adapter in adapters:
        adapter.check_base(base.i2t)
    used = [(a, share, x) for a, share, x in zip(adapters, shares(weights), fronts, strict=True) if share]
    codes, guesses, changes = [], [], []
    for adapter, share, front in used:
        own = adapter.shaped_changes(base.i2t)
        code, w = with_changes(base.i2t, [(strength, own)]).encode(front)
        codes.append(share * code)
        guesses.append(share * w)
        changes.append((strength * share, own))
    code, w = torch.stack(codes).sum(0), torch.stack(guesses).sum(0)
    return base.planes(Prediction(with_changes(base.i2t, changes).decode(code), w, code))

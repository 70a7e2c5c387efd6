"""Oracles check whether pictures show what their captions say. They exist only for data with known attributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Oracle(Protocol):
    names: tuple[str, ...]  # of the attributes that it can check

    def judge(self, images: Tensor, numbers: list[int]) -> Tensor:
        """Compare pictures [n, 3, R, R] with the evaluation captions of these numbers.

        Return [n, names]: 1 = the attribute is shown as the caption says, 0 = it is not, NaN = the caption does not
        mention it.
        """
        ...

    def kept(self, images: Tensor, plain: Tensor, numbers: list[int]) -> Tensor:
        """Compare pictures [n, 3, R, R] with those of the same latents without text, in what captions do not mention.

        Return [n, names]: 1 = both show the same value, 0 = different values, NaN = the evaluation caption mentions the
        attribute, or one of the pictures hides it.
        """
        ...


@dataclass(frozen=True)
class OracleScore:
    share: float  # of all attributes that captions mention, those shown as the caption says
    by_attribute: dict[str, float]  # of the pictures whose caption mentions the attribute
    complete: float  # of all pictures, those that show everything that their caption says
    count: int  # pictures

    @classmethod
    def of(cls, shown: Tensor, names: Sequence[str]) -> "OracleScore":  # [N, names]
        said = ~shown.isnan()
        if not said.any():
            raise ValueError("no caption says anything that the oracle knows; measure without it")
        complete = torch.where(said, shown, 1.0).double().amin(1).mean()
        return cls(*_shares(shown, names), float(complete), len(shown))


@dataclass(frozen=True)
class KeptScore:
    """How much text changes what it does not mention."""

    share: float  # of all attributes that were compared, those with the same value with text and without
    by_attribute: dict[str, float]
    count: int  # attributes compared

    @classmethod
    def of(cls, kept: Tensor, names: Sequence[str]) -> "KeptScore | None":  # [N, names]
        """Return None if nothing could be compared: captions mention everything, or pictures hide the rest."""
        compared = int((~kept.isnan()).sum())
        return cls(*_shares(kept, names), compared) if compared else None


def _shares(right: Tensor, names: Sequence[str]) -> tuple[float, dict[str, float]]:  # [N, names], 1, 0 or NaN
    """Return the share of ones among all numbers, and for each name that has any."""
    counts, hits = (~right.isnan()).sum(0), right.double().nansum(0)
    by_name = {name: float(h / c) for name, h, c in zip(names, hits, counts, strict=True) if c}
    return float(hits.sum() / counts.sum()), by_name

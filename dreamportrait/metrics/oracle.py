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


@dataclass(frozen=True)
class OracleScore:
    share: float  # of all attributes that captions mention, those shown as the caption says
    complete: float  # of all pictures, those that show everything that their caption says
    by_attribute: dict[str, float]  # of the pictures whose caption mentions the attribute
    count: int  # pictures

    @classmethod
    def of(cls, shown: Tensor, names: Sequence[str]) -> "OracleScore":  # [N, names]
        said = ~shown.isnan()
        if not said.any():
            raise ValueError("no caption says anything that the oracle knows; measure without it")
        right = torch.where(said, shown, 1.0).double()
        counts = said.sum(0)
        hits = (right * said).sum(0)
        shares = {name: float(h / c) for name, h, c in zip(names, hits, counts, strict=True) if c}
        return cls(float(hits.sum() / counts.sum()), float(right.amin(1).mean()), shares, len(shown))

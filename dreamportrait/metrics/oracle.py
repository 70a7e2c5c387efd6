"""Where a world is known exactly: does a picture show what its caption says?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Oracle(Protocol):
    names: tuple[str, ...]  # of the attributes it knows

    def judge(self, images: Tensor, numbers: list[int]) -> Tensor:
        """images [n, 3, R, R] for captions of these numbers -> [n, names]: 1 shown as said, 0 not, NaN not said."""
        ...


@dataclass(frozen=True)
class OracleScore:
    share: float  # of all that was said
    complete: float  # of the pictures that show all that was said
    by_attribute: dict[str, float]  # of the pictures whose caption speaks of it
    count: int  # of pictures

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

"""Does a picture show what its caption says? Asked of the attribute oracle, for faces of the miniature world."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamportrait.mini.attributes import ATTRIBUTES, Attributes
from dreamportrait.mini.captions import agrees
from dreamportrait.mini.oracle import Oracle


class WorldOracle:
    """As metrics/oracle.py asks."""

    names = tuple(ATTRIBUTES)

    def __init__(self, oracle: Oracle, facts: Callable[[int], Attributes]) -> None:
        """facts: what the evaluation caption of that number says."""
        self.oracle, self.facts = oracle, facts

    def judge(self, images: Tensor, numbers: list[int]) -> Tensor:  # [n, 3, R, R] -> [n, names]
        rows = [self._shown(face, self.facts(i)) for face, i in zip(self.oracle.read(images), numbers, strict=True)]
        return torch.tensor(rows)

    def _shown(self, face: Attributes, facts: Attributes) -> list[float]:
        return [float(agrees(face, {name: facts[name]})) if name in facts else float("nan") for name in self.names]

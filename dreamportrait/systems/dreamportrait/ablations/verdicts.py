"""Whether an ordering that the paper claims holds here too, and whether that is more than chance.

Seeds that both rows have are compared. With two or more, a difference of their means counts if it is larger than the
standard deviation over seeds, pooled over both rows. With one, R-Precision's difference counts if Newcombe's 95 %
interval, made of both Wilson intervals, excludes zero; other metrics have no interval, and only the direction is told.
"""

import math
from collections.abc import Mapping
from statistics import mean, variance
from typing import Literal, NamedTuple

Word = Literal[
    "holds", "does not hold", "within noise", "the paper's way, of one seed", "reversed, of one seed", "not run"
]


class Measured(NamedTuple):
    """One metric of one row and seed."""

    value: float
    low: float | None = None  # of a 95 % interval, where there is one
    high: float | None = None


class Verdict(NamedTuple):
    word: Word
    difference: float | None = None  # of the row said to be higher, to the other
    noise: float | None = None  # what it is compared with
    seeds: int = 0


def verdict(lower: Mapping[int, Measured], higher: Mapping[int, Measured]) -> Verdict:
    """By seed: the row that the paper has lower, and the one that it has higher."""
    seeds = sorted(lower.keys() & higher.keys())
    if not seeds:
        return Verdict("not run")
    below, above = [lower[seed].value for seed in seeds], [higher[seed].value for seed in seeds]
    difference = mean(above) - mean(below)
    if len(seeds) > 1:
        noise: float | None = math.sqrt((variance(below) + variance(above)) / 2)
    else:
        noise = _interval(lower[seeds[0]], higher[seeds[0]])
    if noise is None and difference:
        word: Word = "the paper's way, of one seed" if difference > 0 else "reversed, of one seed"
    elif noise is None or abs(difference) <= noise:
        word = "within noise"
    else:
        word = "holds" if difference > 0 else "does not hold"
    return Verdict(word, difference, noise, len(seeds))


def _interval(lower: Measured, higher: Measured) -> float | None:
    """How large a difference of two shares may be by chance, on the side of zero. None = nobody knows."""
    a, b = (lower, higher) if lower.value <= higher.value else (higher, lower)
    if a.high is None or b.low is None:
        return None
    return math.hypot(b.value - b.low, a.high - a.value)

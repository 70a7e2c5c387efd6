"""Decide whether an ordering that the paper claims holds here too, and whether the difference exceeds the noise.

The seeds that both rows have are compared. With two or more seeds, a difference of the means counts if it is larger
than the standard deviation over seeds, pooled over both rows. With one seed, the difference of R-Precision counts if
Newcombe's 95 % interval, computed from both Wilson intervals, excludes zero. Other metrics have no interval, so the
verdict only gives the direction.
"""

import math
from collections.abc import Mapping
from statistics import mean, variance
from typing import Literal, NamedTuple

Word = Literal["holds", "does not hold", "within noise", "same direction, one seed", "reversed, one seed", "not run"]


class Measured(NamedTuple):
    """One metric of one row and seed."""

    value: float
    low: float | None = None  # of a 95 % interval. None = the metric has none
    high: float | None = None


class Verdict(NamedTuple):
    word: Word
    difference: float | None = None  # of the means: the row that the paper has higher, minus the other one
    noise: float | None = None  # what the difference is compared with
    seeds: int = 0


def verdict(lower: Mapping[int, Measured], higher: Mapping[int, Measured]) -> Verdict:
    """Compare the row that is lower in the paper with the one that is higher. Both are given by seed."""
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
        word: Word = "same direction, one seed" if difference > 0 else "reversed, one seed"
    elif noise is None or abs(difference) <= noise:
        word = "within noise"
    else:
        word = "holds" if difference > 0 else "does not hold"
    return Verdict(word, difference, noise, len(seeds))


def _interval(lower: Measured, higher: Measured) -> float | None:
    """Return the distance from the difference to the end of Newcombe's interval that is nearer to zero.

    Return None if a share has no interval.
    """
    a, b = (lower, higher) if lower.value <= higher.value else (higher, lower)
    if a.high is None or b.low is None:
        return None
    return math.hypot(b.value - b.low, a.high - a.value)

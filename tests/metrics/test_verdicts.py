"""Tests of verdicts on orderings: noise by hand, common seeds, intervals."""

import math

import pytest

from dreamportrait.metrics.r_precision import wilson
from dreamportrait.metrics.verdicts import Measured, verdict


def of(*values: float) -> dict[int, Measured]:
    return {seed: Measured(value) for seed, value in enumerate(values)}


@pytest.mark.parametrize(
    ("lower", "higher", "word"),
    [
        ((1, 3), (6, 8), "holds"),  # variances 2 and 2: noise sqrt(2)
        ((6, 8), (1, 3), "does not hold"),
        ((1, 3), (2, 4), "within noise"),
        ((2, 4), (1, 3), "within noise"),
        ((5, 5), (5, 5), "within noise"),
        ((5, 5), (6, 6), "holds"),
        ((1,), (6, 8), "same direction, one seed"),
        ((1,), (0.5, 8), "reversed, one seed"),
        ((1,), (1, 8), "within noise"),
        ((), (6, 8), "not run"),
    ],
)
def test_verdicts(lower, higher, word):
    found = verdict(of(*lower), of(*higher))
    assert found.word == word
    assert found.seeds == min(len(lower), len(higher))


def test_noise_by_hand():
    found = verdict(of(1, 2, 3), of(4, 6, 8))  # variances 1 and 4
    assert found.difference == 4 and found.noise == pytest.approx(math.sqrt(2.5)) and found.seeds == 3


def test_only_common_seeds():
    found = verdict({0: Measured(1), 1: Measured(2), 2: Measured(90)}, {1: Measured(4), 0: Measured(3)})
    assert (found.difference, found.seeds) == (2, 2)


def test_one_seed_with_intervals():
    """Newcombe 1998, method 10: 56/70 - 48/80 = 0.2, with the interval 0.0524 .. 0.3339."""
    few, many = (Measured(k / n, *wilson(k / n, n)) for k, n in ((48, 80), (56, 70)))
    found = verdict({0: few}, {0: many})
    assert found.word == "holds" and found.difference - found.noise == pytest.approx(0.0524, abs=1e-4)
    assert verdict({0: many}, {0: few}).word == "does not hold"
    near = Measured(49 / 80, *wilson(49 / 80, 80))
    assert verdict({0: few}, {0: near}).word == verdict({0: near}, {0: few}).word == "within noise"

"""Tests of R-Precision, against cases computed by hand."""

import math

import pytest
import torch

from dreamportrait.metrics.r_precision import candidates, first_places, r_precision, wilson


def test_first_places() -> None:
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.2],  # first: 1
            [0.5, 0.6, 0.1],  # another is higher: 0
            [0.7, 0.7, 0.2],  # one of two equal ones: 1/2
            [0.3, 0.3, 0.3],  # one of three equal ones: 1/3
            [0.3, 0.3, 0.4],  # one of two equal ones, but the third is higher: 0
        ]
    )
    torch.testing.assert_close(first_places(similarity), torch.tensor([1, 0, 1 / 2, 1 / 3, 0]))


def test_both_directions_of_a_case_by_hand() -> None:
    """Compare each image with all four captions, then each caption with all four images."""
    images = torch.eye(4)
    # similarity[i, j] = captions[j, i]; the rows below are captions
    captions = torch.tensor([[0.8, 0.0, 0.0, 0.6], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0.0, 0.0, 0.8, 0.6]])
    # image 0 has .8 .6 0 0: hit; 1 has 0 .8 0 0: hit; 2 has 0 0 1 .8: hit; 3 has .6 0 0 .6: half
    assert r_precision(images, captions, num_candidates=4).value == pytest.approx(3.5 / 4)
    # captions: .8 first, .8 first, 1 first, .6 behind .8
    assert r_precision(captions, images, num_candidates=4).value == pytest.approx(3 / 4)


def test_equal_captions_share_the_place() -> None:
    """Bit-equal candidates must tie wherever they stand; here all 300 images have the same caption."""
    torch.manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(300, 64), dim=1)
    caption = torch.nn.functional.normalize(torch.randn(64), dim=0).expand(300, 64)
    assert r_precision(images, caption, num_candidates=10).value == pytest.approx(0.1)


def test_chance_level_and_seed() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(2000, 16), dim=1) for _ in range(2))
    first, again, other = (r_precision(a, b, 10, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.value != other.value
    assert first.low < 0.1 < first.high  # holds for this seed; 5 % of seeds fail by chance
    assert (first.count, first.candidates) == (2000, 10)


def test_candidates_are_the_own_one_and_different_others() -> None:
    drawn = candidates(torch.tensor([0, 7, 9]), 10, 4, torch.Generator().manual_seed(0))
    assert drawn[:, 0].tolist() == [0, 7, 9]
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    everyone = candidates(torch.tensor([3]), 5, 5, torch.Generator().manual_seed(0))
    assert sorted(everyone[0].tolist()) == [0, 1, 2, 3, 4]


def test_candidates_are_uniform() -> None:
    drawn = candidates(torch.zeros(3000, dtype=torch.long), 5, 2, torch.Generator().manual_seed(0))[:, 1]
    counts = torch.bincount(drawn, minlength=5).tolist()
    assert counts[0] == 0
    assert all(abs(count - 750) < 5 * math.sqrt(750 * 0.75) for count in counts[1:])


def test_wilson_by_hand() -> None:
    # p = 0.8, n = 10, z = 2: centre (0.8 + 0.2) / 1.4; spread 2 * sqrt(0.016 + 0.01) / 1.4
    low, high = wilson(0.8, 10, z=2)
    assert low == pytest.approx((1.0 - 2 * math.sqrt(0.026)) / 1.4)
    assert high == pytest.approx((1.0 + 2 * math.sqrt(0.026)) / 1.4)
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_bad_arguments() -> None:
    features = torch.eye(4)
    with pytest.raises(ValueError, match="num_candidates=5: must be from 2 to the number of pairs, 4"):
        r_precision(features, features, 5)
    with pytest.raises(ValueError, match=r"must both be \[N, C\]"):
        r_precision(features, features[:3], 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        r_precision(features * math.nan, features, 2)
    with pytest.raises(ValueError, match="share=1.5"):
        wilson(1.5, 3)

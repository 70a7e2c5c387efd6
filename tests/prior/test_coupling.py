"""Tests of which seeds the flow carries to which pictures."""

import torch

from dreamportrait.prior.coupling import assign


def test_without_text_each_picture_gets_the_nearest_seed() -> None:
    torch.manual_seed(0)
    x1 = torch.randn(40, 3)
    shuffled = torch.randperm(40)
    order = assign(x1[shuffled] + 0.01 * torch.randn(40, 3), x1, torch.randn(40, 2), weight=0.0)
    assert torch.equal(shuffled[order], torch.arange(40))


def test_every_seed_is_used_once() -> None:
    order = assign(torch.randn(30, 3), torch.randn(30, 3), torch.randn(30, 2), 0.3)
    assert torch.equal(order.sort().values, torch.arange(30))


def test_a_large_weight_leaves_seeds_independent_of_texts() -> None:
    """Seeds and pictures both vary along the text's direction; nearest pictures would tie seeds to texts."""
    torch.manual_seed(0)
    text = torch.randn(400, 1)
    x1 = torch.cat([text, torch.randn(400, 1)], 1)
    x0 = torch.randn(400, 2)

    def related(weight: float) -> float:
        seeds = x0[assign(x0, x1, text, weight)]
        return float(torch.corrcoef(torch.stack([seeds[:, 0], text[:, 0]]))[0, 1])

    assert related(0.0) > 0.8
    assert abs(related(100.0)) < 0.15  # three standard deviations of the correlation of 400 independent numbers


def test_with_few_texts_the_rest_of_a_seed_is_kept() -> None:
    """Two texts only: seeds with the same text have many pictures to choose from, so the other number is kept."""
    torch.manual_seed(0)
    text = torch.randn(400, 1).sign()
    x1 = torch.cat([3 * text, torch.randn(400, 1)], 1)
    x0 = torch.randn(400, 2)
    seeds = x0[assign(x0, x1, text, weight=100.0)]
    assert torch.corrcoef(torch.stack([seeds[:, 1], x1[:, 1]]))[0, 1] > 0.9
    assert abs(torch.corrcoef(torch.stack([seeds[:, 0], text[:, 0]]))[0, 1]) < 0.15


def test_constant_texts_are_no_distance() -> None:
    order = assign(torch.randn(8, 2), torch.randn(8, 2), torch.zeros(8, 2), 0.3)
    assert len(order.unique()) == 8

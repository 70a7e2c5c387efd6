"""Tests of the descent of heads' weights: one step by hand, and what its lengths do to small gradients."""

import pytest
import torch
from torch import Tensor

from dreamportrait.systems.heads.descent import Descent


def moved(gradient: Tensor, steps: int = 1, **settings: float) -> Tensor:
    """Descend a slope from 1."""
    weights = torch.ones_like(gradient).requires_grad_()
    descent = Descent(weights, **({"lr": 0.1, "decay": 0.0} | settings))  # type: ignore[arg-type]
    for _ in range(steps):
        descent.step((weights * gradient).sum())
    return weights.detach() - 1


@pytest.mark.parametrize(
    ("floor", "expected"), [(1.0, [-0.1, -0.01]), (0.5, [-0.1, -0.02]), (0.05, [-0.1, -0.1]), (0.0, [-0.1, -0.1])]
)
def test_one_step_by_hand(floor: float, expected: list[float]) -> None:
    """The mean of one gradient is itself: a step is lr g / |g|, or lr g / (floor * 2) where this is less."""
    found = moved(torch.tensor([2.0, 0.2]), floor=floor)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_without_a_floor_it_is_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(5, 4, generator=generator)
    ours, theirs = (torch.zeros(4).requires_grad_() for _ in range(2))
    descent = Descent(ours, lr=0.05, decay=0.3, floor=0.0)
    adam = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.99), weight_decay=0.3, eps=0)
    for target in targets:
        descent.step((ours - target).square().sum())
        adam.zero_grad()
        (theirs - target).square().sum().backward()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_decay_is_a_shrinking_or_a_part_of_the_gradient() -> None:
    none = torch.tensor([0.0])
    assert moved(none, steps=3, decay=1.0).item() == pytest.approx(0.9**3 - 1)
    # A plain L2 loss has the gradient decay * weights, which is divided by its own size: a whole step.
    assert moved(none, decay=1.0, coupled=True).item() == pytest.approx(-0.1)


def test_long_gradients_are_clipped_before_they_are_remembered() -> None:
    weights = torch.zeros(2).requires_grad_()
    descent = Descent(weights, lr=0.1, decay=0.0, clip=1.0)
    descent.step((weights * torch.tensor([3.0, 4.0])).sum())
    assert descent.m.tolist() == pytest.approx([0.06, 0.08], rel=1e-4)  # 0.1 of a gradient of length 1


def test_gradients_are_divided_before_they_are_compared() -> None:
    """A texel of which a quarter of a pixel is seen moves as one with a whole pixel."""
    found = moved(torch.tensor([2.0, 0.5]), per=torch.tensor([1.0, 0.25]))  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([-0.1, -0.1])


def test_gradients_that_are_no_numbers_are_refused() -> None:
    weights = torch.zeros(2).requires_grad_()
    with pytest.raises(RuntimeError, match="non-finite"):
        Descent(weights, lr=0.1, decay=0.0).step((weights * torch.tensor([torch.nan, 1.0])).sum())


def test_without_any_gradient_nothing_moves() -> None:
    assert moved(torch.zeros(3)).eq(0).all()

"""Tests of the coordinates of W."""

import pytest
import torch

from dreamportrait.prior.space import FLOOR, WSpace


def sample(count: int = 4000) -> torch.Tensor:
    """Return w with standard deviations 3, 1 and 0 along three directions that are not the axes."""
    torch.manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(3, 3))
    return torch.randn(count, 3) * torch.tensor([3.0, 1.0, 0.0]) @ turn.T + torch.tensor([5.0, -2.0, 1.0])


def test_leaving_returns_what_entered() -> None:
    w = sample()
    space = WSpace(3).fit(w)
    torch.testing.assert_close(
        space.leave(space.enter(w)), w, atol=1e-4, rtol=1e-5
    )  # float32 rounding of numbers near 10


def test_steps_are_differences_of_w() -> None:
    space, x = WSpace(3).fit(sample()), torch.randn(2, 3)
    torch.testing.assert_close(space.step(x[:1] - x[1:]), space.leave(x[:1]) - space.leave(x[1:]), atol=1e-5, rtol=1e-4)


def test_main_directions_have_unit_variance_and_empty_ones_stay_small() -> None:
    w = sample()
    x = WSpace(3).fit(w).enter(w)
    variances = torch.linalg.eigvalsh(torch.cov(w.double().T))
    expected = variances / (variances + FLOOR * variances.mean())
    torch.testing.assert_close(x.var(0).double().sort().values, expected.sort().values, atol=1e-3, rtol=1e-3)
    assert float(x.std(0).min()) < 1e-3  # a step of one deviation there would leave the sample


def test_a_new_space_is_the_identity() -> None:
    w = sample(5)
    assert torch.equal(WSpace(3).enter(w), w)


@pytest.mark.parametrize(("w", "message"), [(torch.randn(1, 3), "at least 2"), (torch.full((9, 3), torch.nan), "NaN")])
def test_samples_that_cannot_be_used_are_refused(w: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WSpace(3).fit(w)

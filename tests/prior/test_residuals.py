"""Tests of what is added to guesses of w so that they vary as the generator's own."""

import torch
from torch import Tensor, nn

from dreamportrait.prior.residuals import Guesses


class Half(nn.Module):
    """A network from pictures to w that sees the first of two numbers only."""

    def forward(self, features: Tensor) -> Tensor:  # [N, 1] -> [N, 2]
        return torch.cat([features, torch.zeros_like(features)], 1)


def known(count: int = 600, held: int = 100) -> tuple[Guesses, Tensor]:
    torch.manual_seed(0)
    own = torch.randn(count, 2)
    own[held:, 1] *= 0.5  # as if the network had learnt these by heart
    return Guesses.of(Half(), own[:, :1].half(), own, held), own  # type: ignore[arg-type]


def test_errors_are_as_large_as_on_unseen_renders() -> None:
    guesses, own = known()
    assert torch.equal(guesses.error[:100], own[:100] - guesses.x[:100])
    seen, unseen = (part.square().mean() for part in (guesses.error[100:], guesses.error[:100]))
    torch.testing.assert_close(seen, unseen)


def test_pictures_get_the_errors_of_renders_that_look_alike() -> None:
    guesses, _ = known()
    alike = guesses.like(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 20)
    assert alike.shape == (2, 20)
    assert (guesses.x[alike[0], 0] < -0.5).all()
    assert (guesses.x[alike[1], 0] > 0.5).all()


def test_more_are_not_asked_for_than_there_are() -> None:
    guesses, _ = known()
    assert guesses.like(guesses.x[:3], 10_000).shape == (3, 600)


def test_draws_vary_as_the_generators_own() -> None:
    guesses, own = known()
    x = torch.cat([torch.randn(2000, 1), torch.zeros(2000, 1)], 1)
    drawn = x[:, None] + guesses.error[guesses.like(x)]  # [2000, 32, 2]
    # The standard deviation of 100 numbers is known to 7 %, and 32 neighbours of each picture repeat.
    assert abs(float(drawn[:, :, 1].std()) / float(own[:100, 1].std()) - 1) < 0.2

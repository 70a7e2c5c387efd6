"""Tests of the critic of pairs of w and text."""

import pytest
import torch

from dreamportrait.prior.fitting import Pairs
from dreamportrait.prior.pair_critic import R1, Drawn, PairCritic, PairGame

COUNT, W, TEXT = 64, 4, 3


def pairs(seed: int = 0) -> Pairs:
    """Return pairs in which w repeats the text: its first three numbers are those of the caption."""
    numbers = torch.Generator().manual_seed(seed)
    text = torch.randn(COUNT, 1, TEXT, generator=numbers)
    return Pairs(torch.cat([text, 0.1 * torch.randn(COUNT, 1, 1, generator=numbers)], 2), text)


def game() -> PairGame:
    torch.manual_seed(0)
    return PairGame(pairs())


def test_a_new_critic_has_no_opinion() -> None:
    torch.manual_seed(0)
    logits = PairCritic(W, TEXT)(torch.randn(5, W), torch.randn(5, TEXT))
    assert logits.shape == (5, 1) and not logits.any()


def test_the_losses_of_a_new_critic() -> None:
    """With logits of zero, each softplus is log 2: one real, one fake, half a mismatched one; one for the mapper."""
    made = game()
    drawn = Drawn(*made.draw(8, torch.device("cpu")), torch.randn(8, W))
    log2 = torch.tensor(2.0).log()
    torch.testing.assert_close(made.mapper_loss(drawn), log2)
    torch.testing.assert_close(made.critic_loss(drawn), 2.5 * log2)


def test_the_penalty_is_of_the_slope_at_real_pairs() -> None:
    made = game()
    x, text = made.draw(8, torch.device("cpu"))
    slope = torch.arange(1.0, W + 1)  # |slope|^2 = 30

    def linear(x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return (x @ slope)[:, None]

    made.critic = linear  # type: ignore[assignment]
    logits = linear(x, text)
    expected = torch.nn.functional.softplus(-logits).mean() + 1.5 * torch.nn.functional.softplus(logits).mean()
    torch.testing.assert_close(made.critic_loss(Drawn(x, text, x)), expected + R1 / 2 * 30)


def test_the_mapper_does_not_move_the_critic() -> None:
    made = game()
    fake = torch.randn(8, W, requires_grad=True)
    torch.nn.init.normal_(made.critic.joint[-1].weight)
    made.mapper_loss(Drawn(*made.draw(8, torch.device("cpu")), fake)).backward()
    assert fake.grad is not None and fake.grad.any()
    assert all(p.grad is None for p in made.critic.parameters())


def test_it_learns_what_belongs_together() -> None:
    """After 300 steps it tells fitting captions from others, and its gradient leads an answer towards its text."""
    made = game()
    optimizer = torch.optim.Adam(made.critic.parameters(), 3e-3)
    for _ in range(300):
        x, text = made.draw(32, torch.device("cpu"))
        loss = made.critic_loss(Drawn(x, text, torch.randn(32, W)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, text = made.draw(64, torch.device("cpu"))
    with torch.no_grad():
        assert (made.critic(x, text) > made.critic(x, text.roll(1, 0))).float().mean() > 0.9

    fake = torch.zeros(64, W, requires_grad=True)
    (slope,) = torch.autograd.grad(made.mapper_loss(Drawn(x, text, fake)), fake)
    cosine = torch.nn.functional.cosine_similarity(-slope[:, :TEXT], text, dim=1)
    assert cosine.mean() > 0.5


def test_pairs_with_nan_are_refused() -> None:
    given = pairs()
    with pytest.raises(ValueError, match="contain NaN"):
        Pairs(given.x * torch.nan, given.text)

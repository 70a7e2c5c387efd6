"""Tests of the map that leaves of a change of w what texts say nothing about."""

import torch
from torch import Tensor

from dreamportrait.prior.unsaid import OPEN, unsaid

NOISE = 0.5  # standard deviation, of what texts do not tell of a told number


def world(count: int = 20_000) -> tuple[Tensor, Tensor]:  # x [P, 4], text [P, 3]
    """Return a w of which the text tells two numbers: with noise the one of variance 1, fully a mixture of the others.

    The third feature of texts repeats the first.
    """
    torch.manual_seed(0)
    text, free = torch.randn(count, 2), torch.randn(count, 2)
    mixed = 3 * text[:, 1]
    x = torch.stack([text[:, 0] + NOISE * free[:, 0], mixed + free[:, 1], mixed - free[:, 1], torch.randn(count)], 1)
    return x, torch.cat([text, text[:, :1]], 1)


def test_directions_are_left_by_how_little_texts_tell_of_them():
    leaves = unsaid(*world())
    told = 1 / (1 + NOISE**2)
    # rho^2 of the first number, of the sum of the next two, of their difference, of the last number. Covariances of
    # 20 000 samples are off by 1 %, and what is left of a fully told direction by as much of itself.
    for direction, share in (([1, 0, 0, 0], told), ([0, 1, 1, 0], 1.0), ([0, 1, -1, 0], 0.0), ([0, 0, 0, 1], 0.0)):
        change = torch.tensor(direction).float()
        torch.testing.assert_close(leaves @ change, OPEN / (share + OPEN) * change, atol=0.02, rtol=0.02)


def test_it_does_not_depend_on_the_units_of_w():
    """Hats may be a small direction of W and glasses a large one."""
    x, text = world()
    units = torch.tensor([1.0, 0.4, 3.0, 2.0])
    # In other units, changes are multiplied and so is what is left of them; the floor of the variances differs.
    torch.testing.assert_close(unsaid(x * units, text), units[:, None] * unsaid(x, text) / units, atol=0.02, rtol=0.02)


def test_without_words_everything_is_unsaid():
    x, text = world()
    torch.testing.assert_close(unsaid(x, torch.zeros_like(text)), torch.eye(4))

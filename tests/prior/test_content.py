"""Tests of draws of w that say what the picture says, on a world of three numbers.

w has three numbers. The picture shows the first two; the inverter sees the first one only. Captions name the second.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamportrait.prior import content
from dreamportrait.prior.content import Reader, Teller, chosen, draws, fit_reader, fit_teller, moved
from dreamportrait.prior.inversion import FeatureMap, Inverter
from dreamportrait.prior.residuals import Guesses
from dreamportrait.prior.space import WSpace


class Second(Teller):
    """A teller that is right: content is the second number of w."""

    def __init__(self) -> None:
        super().__init__(3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:2]


def known(count: int = 400) -> Guesses:
    """Return guesses that are right about the first number and say zero for the others."""
    torch.manual_seed(0)
    own = torch.randn(count, 3)
    guess = own * torch.tensor([1.0, 0.0, 0.0])
    return Guesses(guess, own - guess)


def test_draws_that_agree_are_chosen() -> None:
    guesses = known()
    wanted = torch.tensor([[1.0], [-1.0]])
    x = chosen(Second(), torch.zeros(2, 3), guesses, wanted)
    assert x.shape == (2, content.KEPT, 3)
    near = guesses.error[guesses.like(torch.zeros(1, 3))[0], 1]  # all 32 possible ones
    best = (near[None] - wanted).abs().sort(1).values[:, : content.KEPT]
    torch.testing.assert_close((x[:, :, 1] - wanted).abs(), best)


def test_draws_are_moved_half_way_and_along_the_content_alone() -> None:
    """|x - c|^2 + |x - start|^2 is smallest half way. Adam's steps end near it; bfloat16 keeps three digits."""
    start = torch.tensor([[[0.5, 0.0, -0.5]]])
    x = moved(Second(), start, torch.tensor([[0.6]]))
    torch.testing.assert_close(x, torch.tensor([[[0.5, 0.3, -0.5]]]), atol=0.05, rtol=0)


def test_draws_say_what_the_pictures_say_and_vary_otherwise() -> None:
    torch.manual_seed(1)
    wanted = torch.randn(50, 1)
    x = draws(Second(), torch.zeros(50, 3), known(), wanted)
    said = x[:, :, 1]
    assert float((said - wanted).square().mean()) < 0.1 * float(wanted.square().mean())
    assert abs(float(x[:, :, 2].std()) - 1) < 0.3  # of 200 numbers that repeat


@pytest.mark.lengthy
def test_reader_and_teller_learn(tmp_path: Path) -> None:
    """The picture shows two numbers; its captions name them with noise. w is these numbers and another one."""
    torch.manual_seed(0)
    numbers = torch.randn(600, 2)
    text = numbers[:, None] + 0.3 * torch.randn(600, 2, 2)
    maps, given = (FeatureMap(2, 1),), {"steps": 300, "batch": 64, "seed": 0}
    read, error = fit_reader(maps, numbers.half(), text.half(), numbers[:300].half(), tmp_path / "reader", **given)
    # The mean of two captions has noise of variance .045 beside 1. In training, features have noise of variance .16.
    assert 0.02 < error < 0.2
    found = read(numbers)
    assert (found.std(0) - 1).abs().max() < 0.1
    x = torch.cat([numbers, torch.randn(600, 1)], 1)
    teller, error = fit_teller(x, found, tmp_path / "teller", **given)
    assert error < 0.05 and not any(p.requires_grad for p in teller.parameters())
    assert torch.equal(Teller.of(teller.state_dict())(x), teller(x))


def test_a_reader_measures_in_deviations_of_what_it_reads() -> None:
    torch.manual_seed(0)
    net = Inverter((FeatureMap(1, 1),), 2).eval()
    features = torch.randn(100, 1)
    plain = Reader(net, WSpace(2))(features)
    space = WSpace(2).fit(plain)
    torch.testing.assert_close(Reader(net, space)(features), space.enter(plain))

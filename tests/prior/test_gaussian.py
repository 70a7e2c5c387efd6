"""Tests of what a text says of w and what it leaves open."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamportrait.prior.flow import DRAWN, TextFlow, transport
from dreamportrait.prior.gaussian import NARROWEST, TextGaussian, fit_gaussian
from dreamportrait.prior.one_pass import answers

MIXED = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3))).Q * torch.tensor([3.0, 1, 1, 1])


def pairs(count: int = 6000) -> tuple[Tensor, Tensor]:  # x [P, 1, 4], text [P, 1, 2]
    """Return a world of four hidden numbers, mixed into x.

    The first feature of a text is 0 or 1. With 1, the second feature is the first hidden number, else the second one.
    """
    torch.manual_seed(0)
    hidden, which = torch.randn(count, 4), torch.arange(count) % 2
    text = torch.stack([which.float(), hidden.gather(1, 1 - which[:, None])[:, 0]], 1)
    return (hidden @ MIXED.T)[:, None], text[:, None]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextGaussian, float]:
    x, text = pairs()
    return fit_gaussian(x, text, tmp_path_factory.mktemp("gaussian"), steps=1500, batch=256, seed=0)


def test_a_new_one_is_of_no_text() -> None:
    x, text = (each[:, 0] for each in pairs())
    made = TextGaussian(4, 2).fit(x)
    y = made.enter(x)
    # The floor under the variances of x, 1 or more, is a thousandth.
    torch.testing.assert_close(torch.cov(y.T), torch.eye(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(made.leave(y), x, atol=1e-4, rtol=1e-4)
    # s^2 begins at exp(-0.05).
    assert made.surprise(x, text).item() == pytest.approx(0.5, abs=2e-3)
    torch.testing.assert_close(made.carried(x, text), x, atol=0.3, rtol=0)


def test_it_turns_to_the_numbers_that_texts_speak_of(known: tuple[TextGaussian, float]) -> None:
    """Only in these coordinates, a text leaves three numbers as they are. Whitening alone would mix all four."""
    made, surprise = known
    own = made.enter(torch.eye(4) @ MIXED.T + made.mean).abs()  # [hidden number, y]
    for told in (0, 1):
        assert float(own[told].max()) > 0.95
    # One of four numbers is known, to at most exp(-NARROWEST / 2) of its deviation.
    assert (3 * 1 - NARROWEST) / 8 < surprise < 0.1


def test_what_the_text_does_not_mention_stays(known: tuple[TextGaussian, float]) -> None:
    made, _ = known
    torch.manual_seed(5)
    seeds = torch.randn(200, 4)
    for which in (0, 1):
        told = 1 - which
        text = torch.stack([torch.full((200,), float(which)), torch.randn(200)], 1)
        end = made.carried(seeds @ MIXED.T, text) @ torch.linalg.inv(MIXED).T
        others = [i for i in range(4) if i != told]
        # The network learns from 6000 pairs; half of its error is the narrowest deviation, 0.08.
        assert float((end[:, told] - text[:, 1]).square().mean().sqrt()) < 0.25
        assert float((end[:, others] - seeds[:, others]).square().mean().sqrt()) < 0.25


def test_a_text_never_widens() -> None:
    made = TextGaussian(4, 2)
    torch.nn.init.normal_(made.net[-1].weight, std=50.0)
    _, log_variance = made(torch.randn(500, 2))
    assert log_variance.max().item() <= 0 and log_variance.min().item() == -NARROWEST


class Still(TextFlow):
    """A flow that does not move."""

    def forward(self, x: Tensor, t: Tensor, text: Tensor, told: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_the_flow_is_drawn_until_its_last_fifth() -> None:
    start, anchor, flow = torch.zeros(3, 2), torch.ones(3, 2), Still(2, 1)
    end = transport(flow, start, torch.zeros(3, 1), 10, 1.0, anchor, 0.5)
    # Of the way that is left, a twentieth is gone in each step.
    torch.testing.assert_close(end, torch.full((3, 2), 1 - 0.95 ** round(10 * DRAWN)))
    assert torch.equal(transport(flow, start, torch.zeros(3, 1), 10, 1.0), start)


def test_answers_are_drawn_to_the_gaussian(known: tuple[TextGaussian, float]) -> None:
    x, text = (each[:, 0] for each in pairs())
    null = torch.full((1, 2), 9.0)
    found, drawn = (
        answers(Still(4, 2), x, text, null, 300, steps=10, scale=1.0, seed=0, silent=0.2, gaussian=known[0], stay=stay)
        for stay in (0.0, 0.5)
    )
    said = (found.text != 9).all(1)
    assert torch.equal(found.end, found.start) and torch.equal(drawn.end[~said], drawn.start[~said])
    goal = known[0].carried(drawn.start[said], drawn.text[said])  # the standard of a new flow changes nothing
    part = 1 - 0.95 ** round(10 * DRAWN)
    torch.testing.assert_close(drawn.end[said], drawn.start[said].lerp(goal, part), atol=1e-4, rtol=1e-4)


def test_the_same_command_reads_what_was_learnt(tmp_path: Path) -> None:
    x, text = pairs(600)
    first, _ = fit_gaussian(x, text, tmp_path, steps=4, batch=16, seed=1)
    again, _ = fit_gaussian(x, text, tmp_path, steps=4, batch=16, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))

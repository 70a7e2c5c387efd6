"""Tests of the flow from seeds to the w that shows a text."""

import pytest
import torch
from torch import Tensor

from dreamportrait.prior import fitting
from dreamportrait.prior.fitting import Pairs, fit_flow
from dreamportrait.prior.flow import TIMES, TextFlow, flow_loss, transport, waves
from dreamportrait.prior.network import ConditionedNet
from dreamportrait.prior.one_pass import answers, fit_one_pass


class Straight(TextFlow):
    """A flow whose velocity is the text with text, and zero without."""

    def forward(self, x: Tensor, t: Tensor, text: Tensor, told: Tensor) -> Tensor:
        return torch.where(told[:, None], text, torch.zeros_like(text))


def test_a_constant_velocity_moves_by_itself_times_the_scale() -> None:
    x, text = torch.randn(5, 3), torch.randn(5, 3)
    for steps in (1, 7):
        # 7 additions of a seventh: rounding of float32.
        torch.testing.assert_close(transport(Straight(3, 3), x, text, steps, 2.0), x + 2 * text, atol=1e-5, rtol=1e-5)


def test_without_a_step_nothing_can_move() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        transport(Straight(3, 3), torch.randn(1, 3), torch.randn(1, 3), 0, 1.0)


def test_the_loss_of_the_right_velocity_is_zero() -> None:
    flow = Straight(3, 3)
    x0, x1 = torch.zeros(64, 3), torch.ones(64, 3)
    flow.forward = lambda x, t, text, told: torch.ones_like(x)  # type: ignore[method-assign]
    assert float(flow_loss(flow, x0, x1, torch.zeros(64, 3))) == 0


def test_a_new_flow_and_a_new_net_do_nothing() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(transport(TextFlow(6, 5, 16, 2), x, torch.randn(4, 5), 3, 2.0), x)
    assert not ConditionedNet(6, 5, 16, 2)(x, torch.randn(4, 5)).any()


def test_waves_of_the_start() -> None:
    found = waves(torch.zeros(1))[0]
    assert torch.equal(found, torch.cat([torch.zeros(TIMES), torch.ones(TIMES)]))


def toy_pairs() -> Pairs:
    """Return pairs in which the first number of x is the text's sign, and the second is independent of it."""
    torch.manual_seed(0)
    text = torch.randn(2000, 1, 1).sign()
    x = torch.cat([2 * text[:, 0] + 0.1 * torch.randn(2000, 1), torch.randn(2000, 1)], 1)
    return Pairs(x[:, None], text)


def test_the_flow_follows_the_text_and_its_one_pass_form_agrees(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pairs, starts = toy_pairs(), torch.randn(2000, 2)
    flow = fit_flow(TextFlow(2, 1, 32, 2), starts, pairs, tmp_path / "flow", steps=400, batch=64, seed=0, coupling=1.0)
    x, text = torch.randn(200, 2), torch.ones(200, 1)
    ends = transport(flow, x, text, 8, 1.0)
    # The flow moves the first number to 2 (standard deviation 0.1) and leaves the second one's distribution alone.
    assert abs(float(ends[:, 0].mean()) - 2) < 0.3
    assert 0.6 < float(ends[:, 1].std()) < 1.4

    null = torch.zeros(1, 1)
    known = answers(flow, starts, pairs.text.flatten(0, 1), null, 1500, steps=8, scale=1.0, seed=0)
    quiet = (known.text == 0).all(1)
    assert 0.03 < float(quiet.float().mean()) < 0.1
    assert torch.equal(known.end[quiet], known.start[quiet])  # a prompt that says nothing changes nothing
    net, error = fit_one_pass(ConditionedNet(2, 1, 32, 2), known, tmp_path / "net", steps=300, batch=64, seed=0)
    assert error < 0.15  # the variance of the ends is about 2.5
    assert float((x + net(x, text) - ends).square().mean()) < 0.3


def test_a_stopped_fit_continues_to_the_same_weights(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pairs, starts = toy_pairs(), torch.randn(100, 2)

    def fit(folder: str) -> TextFlow:
        torch.manual_seed(3)
        return fit_flow(
            TextFlow(2, 1, 8, 1), starts, pairs, tmp_path / folder, steps=12, batch=16, seed=0, coupling=0.3
        )

    whole = fit("a")
    (tmp_path / "a" / "state.pt").rename(tmp_path / "kept.pt")
    again = fit("a")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_seeds_are_assigned_by_what_they_say_too(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Seeds are assigned in groups of two batches, by coordinates followed by what the teller says of them."""
    given = []

    def assign(x0: torch.Tensor, x1: torch.Tensor, text: torch.Tensor, weight: float) -> torch.Tensor:
        given.append((x0, x1, text))
        return torch.arange(len(x0))

    monkeypatch.setattr(fitting, "assign", assign)
    pairs, starts = toy_pairs(), torch.randn(100, 2)
    said = {"steps": 1, "batch": 16, "seed": 0, "coupling": 0.3, "tell": lambda x: 10 * x[:, 1:]}
    fit_flow(TextFlow(2, 1, 8, 1), starts, pairs, tmp_path, **said)
    ((x0, x1, text),) = given
    assert x0.shape == x1.shape == (32, 3) and text.shape == (32, 1)
    assert torch.equal(x0[:, 2], 10 * x0[:, 1]) and torch.equal(x1[:, 2], 10 * x1[:, 1])


def test_pairs_with_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Pairs(torch.full((2, 1, 3), torch.nan), torch.zeros(2, 1, 4))

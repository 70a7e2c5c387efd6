"""Tests of what the one pass learns beside the ends of the flow.

w has two numbers, and the first one is what a face shows. A text is one number that the first one should be.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dreamportrait.prior.content import Teller
from dreamportrait.prior.inversion import FeatureMap
from dreamportrait.prior.matcher import Matcher
from dreamportrait.prior.network import ConditionedNet
from dreamportrait.prior.one_pass import Answers, Listening, fit_one_pass


class First(Teller):
    """Tells the first number of w."""

    def __init__(self) -> None:
        super().__init__(2, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


class Near(Matcher):
    """Scores texts by how near they are: log p of a normal distribution of deviation 1/2, up to a constant."""

    def __init__(self) -> None:
        super().__init__((FeatureMap(1, 1),), 1, width=2, code=1)

    def forward(self, code: Tensor, text: Tensor) -> Tensor:
        return -2 * (code - text.T).square()


def listening(listen: float, keep: float) -> Listening:
    return Listening(Near(), First(), listen, keep)


def lazy(count: int = 800) -> Answers:
    """Return ends that the flow leaves at the start, and texts that ask for something else."""
    torch.manual_seed(0)
    start, text = torch.randn(count, 2), torch.randn(count, 1)
    return Answers(start, text, start + torch.tensor([0.0, 0.5]))


def test_the_terms_are_those_of_the_equation() -> None:
    start, x, text = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 2.0]]), torch.zeros(2, 1)
    loud = torch.tensor([False, False])
    # Both texts are the same, so the probability of the right one is 1/2. One code moved by 1, the other not.
    found = listening(3.0, 0.4)(x, start, text, loud)
    torch.testing.assert_close(found, 3 * torch.tensor(2.0).log() + 0.4 * torch.tensor(0.5) / 2)
    # A text that says nothing is no text of a face: of two rows, one is heard, and it is the only one.
    quiet = listening(3.0, 0.4)(x, start, text, torch.tensor([True, False]))
    torch.testing.assert_close(quiet, 0.4 * torch.tensor(0.5) / 2)
    assert torch.isfinite(listening(3.0, 0.4)(x, start, text, torch.tensor([True, True])))


@pytest.mark.lengthy
def test_one_pass_says_more_by_listening_and_moves_less_by_keeping(tmp_path: Path) -> None:
    known = lazy()

    def error(name: str, told: Listening | None) -> tuple[float, float]:
        torch.manual_seed(1)
        net: nn.Module = ConditionedNet(2, 1, 32, 2)
        given = {"steps": 300, "batch": 64, "seed": 0}
        fitted, _ = fit_one_pass(net, known, tmp_path / name, listening=told, **given)
        with torch.no_grad():
            moved = fitted(known.start, known.text)
        unsaid = known.start[:, :1] + moved[:, :1] - known.text
        return float(unsaid.square().mean()), float((moved[:, 1] - 0.5).square().mean())

    deaf, plain = error("deaf", None)
    heard, other = error("heard", listening(2.0, 0.0))
    kept, _ = error("kept", listening(2.0, 4.0))
    assert heard < 0.3 * deaf and heard < kept < deaf
    assert plain < 0.05 and other < 0.05  # what the text does not ask for is as the flow leaves it

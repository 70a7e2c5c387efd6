"""Tests of what steers the flow.

w has two numbers, and the first one is what a face shows. A text is one number that the first one should be.
"""

import pytest
import torch
from torch import Tensor, nn

from dreamportrait.prior.flow import STEERED, TextFlow, transport
from dreamportrait.prior.matcher import Matcher
from dreamportrait.prior.one_pass import answers
from dreamportrait.prior.steering import COMMON, NEAR, SAME, Judge, Steering

UNSAID = torch.tensor([[0.2, 0.1], [0.0, 1.0]])  # of the first number, texts say much


class Still(TextFlow):
    """A flow that does not move."""

    def forward(self, x: Tensor, t: Tensor, text: Tensor, told: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Near(nn.Module):
    """Directions with which the score of a code c and a text t is -2 (c - t)^2, up to a constant of c.

    The first number of a direction is multiplied by the code, the other one is added.
    """

    def forward(self, text: Tensor) -> Tensor:
        return torch.cat([4 * text, -2 * text.square()], 1)


def judge() -> Judge:
    matcher = Matcher(nn.Identity(), 1, width=2, code=1)
    matcher.text = Near()  # type: ignore[assignment]
    return Judge(lambda x: x[:, :1], matcher.requires_grad_(False))


def steering(listen: float = 0.0, keep: float = 0.0, stay: float = 0.0, judges: int = 1) -> Steering:
    torch.manual_seed(0)
    texts = torch.randn(2000, 1)
    judged = [judge() for _ in range(judges)]
    return Steering(judged, texts, UNSAID, listen=listen, keep=keep, stay=stay, seed=0)


def points(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:  # x [N, 2], start [N, 2], text [N, 1]
    torch.manual_seed(1)
    return torch.randn(count, 2), torch.randn(count, 2), torch.randn(count, 1)


def test_keeping_and_staying_pull_back() -> None:
    x, start, text = points()
    kept = steering(keep=0.5).towards(start, text)(x)
    apart = x - start
    torch.testing.assert_close(kept, 0.5 * apart * torch.tensor([1.0, 0.0]))  # only what is seen
    expected = 0.5 * torch.stack([0.2 * apart[:, 0] + 0.1 * apart[:, 1], apart[:, 1]], 1)
    torch.testing.assert_close(steering(stay=0.5).towards(start, text)(x), expected)


def test_listening_descends_to_the_text() -> None:
    x, start, text = points(200)
    found = steering(listen=2.0).towards(start, text)(x)
    assert not found[:, 1].any()  # nothing of it is seen
    far = (x[:, :1] - text).abs()[:, 0] > 0.5
    assert torch.equal(found[far, 0] > 0, (x[far, :1] > text[far])[:, 0])


def test_the_gradient_is_that_of_the_text_s_probability_among_its_rivals() -> None:
    x, start, text = points(1)
    steer = steering(listen=3.0)
    near = steer._near(text)[0]
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    texts = torch.randn(2000, 1)[order]
    rivals = torch.cat([texts[near], texts[:COMMON]])[:, 0]
    assert len(near) == NEAR and len(rivals) == COMMON + NEAR
    c = x[0, 0].clone().requires_grad_()
    scores = -2 * (c - torch.cat([text[0], rivals])).square()
    (expected,) = torch.autograd.grad(-3 * scores.log_softmax(0)[0], c)
    # Sums of 357 numbers in another order.
    torch.testing.assert_close(steer.towards(start, text)(x)[0, 0], expected, atol=1e-4, rtol=1e-4)


def test_two_judges_of_one_opinion_are_as_one() -> None:
    x, start, text = points()
    one, two = (steering(2.0, 0.1, 0.2, judges=count).towards(start, text)(x) for count in (1, 2))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_rivals_do_not_say_the_same() -> None:
    steer, (_, _, text) = steering(), points()
    own = judge().matcher.text(text)[:, :-1]
    rivals = steer.pool[0][steer._near(text)][..., :-1]  # [N, NEAR, 1]
    apart = (rivals - own[:, None]).abs()
    every = (steer.pool[0][None, :, :-1] - own[:, None]).abs()
    assert float(apart.min()) >= SAME * float(every.mean())
    assert float(apart.max()) < float(every.mean())


def test_the_flow_is_steered_until_its_last_fifth() -> None:
    heading, flow = [], Still(2, 1)

    def steer(x: Tensor) -> Tensor:
        heading.append(x)
        return torch.ones_like(x)

    end = transport(flow, torch.zeros(3, 2), torch.zeros(3, 1), 10, 1.0, steer)
    assert len(heading) == round(10 * STEERED)
    torch.testing.assert_close(end, torch.full((3, 2), -STEERED))
    torch.testing.assert_close(heading[3], torch.full((3, 2), -0.3))  # The flow itself would go nowhere.


@pytest.mark.parametrize("stay", [0.0, 1.0])
def test_answers_of_a_lazy_flow_say_what_is_asked(stay: float) -> None:
    torch.manual_seed(2)
    starts, texts, null = torch.randn(500, 2), torch.randn(500, 1), torch.zeros(1, 1)
    found = answers(
        Still(2, 1),
        starts,
        texts,
        null,
        300,
        steps=16,
        scale=1.0,
        seed=0,
        silent=0.2,
        steering=steering(listen=1.0, stay=stay),
    )
    quiet = (found.text == 0).all(1)
    assert torch.equal(found.end[quiet], found.start[quiet])
    assert torch.equal(found.end[:, 1], found.start[:, 1])
    before, after = ((x[~quiet, :1] - found.text[~quiet]).square().mean() for x in (found.start, found.end))
    assert after < (0.1 if not stay else 0.3) * before

"""Tests of the matcher, on pictures whose features are two numbers that their captions name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dreamportrait.prior.inversion import FeatureMap, Inverter
from dreamportrait.prior.matcher import CODE, Matcher, contrast, fit_matcher

MAPS = (FeatureMap(2, 1),)


def world(count: int) -> tuple[Tensor, Tensor]:  # features [N, 2] of pictures, texts [N, 2, 2]
    torch.manual_seed(0)
    numbers = torch.randn(count, 2)
    return numbers, numbers[:, None] + 0.2 * torch.randn(count, 2, 2)


@pytest.mark.lengthy
def test_the_matcher_finds_the_text_of_a_picture(tmp_path: Path) -> None:
    features, text = world(1000)
    torch.manual_seed(0)
    new = Matcher(Inverter(MAPS, CODE), 2)
    given = {"steps": 300, "batch": 32, "seed": 0, "noise": 0.4}
    matcher, found = fit_matcher(new, features[:, None].half(), text, tmp_path, **given)
    assert found < 0.6 * torch.tensor(32.0).log()  # chance is log 32
    assert not any(p.requires_grad for p in matcher.parameters())
    codes = matcher.codes(features)
    torch.testing.assert_close(codes.std(0), torch.ones(codes.shape[1]), atol=0.1, rtol=0)  # 5 % of them are unseen
    # Of four pictures far from each other, each is found by the text that says its numbers.
    corners = torch.tensor([[1.5, 1.5], [-1.5, 1.5], [1.5, -1.5], [-1.5, -1.5]])
    assert torch.equal(matcher(matcher.codes(corners), corners).argmax(1), torch.arange(4))


def test_scores_do_not_depend_on_the_scale_of_codes() -> None:
    features, text = world(50)
    matcher = Matcher(nn.Linear(2, 4), 2, width=8, code=4).eval()
    plain = matcher(matcher.codes(features), text[:, 0])
    matcher.standardise(features)
    codes = matcher.codes(features)
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(matcher(codes, text[:, 0]), plain, atol=1e-4, rtol=1e-4)  # sums of float32


def test_scores_with_directions_of_each_code_are_those_with_all() -> None:
    features, text = world(5)
    matcher = Matcher(nn.Linear(2, 4), 2, width=8, code=4).eval()
    codes, directions = matcher.codes(features), matcher.text(text[:, 0])
    own = torch.stack([directions[[i, 0]] for i in range(5)])  # [5, 2, 5]
    every = matcher(codes, text[:, 0])
    expected = torch.stack([every.diagonal(), every[:, 0]], 1)
    torch.testing.assert_close(matcher.scores(codes, own), expected, atol=1e-6, rtol=1e-5)  # order of sums in float32


def test_contrast_is_that_of_chance_for_equal_scores_and_zero_for_sure_ones() -> None:
    torch.testing.assert_close(contrast(torch.zeros(8, 8)), torch.tensor(8.0).log())
    assert float(contrast(100 * torch.eye(8))) < 1e-6

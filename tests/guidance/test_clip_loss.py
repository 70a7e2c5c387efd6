"""Tests of the CLIP loss, with known features and with a real CLIP."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dreamportrait.guidance.guides import clip_loss
from dreamportrait.mini.clip_training import CONFIGS
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer


class Known:
    """A scorer whose image features are the three mean colours and whose text features are the three numbers given."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)

    def text_features(self, prompts: list[str]) -> Tensor:
        numbers = torch.tensor([[float(word) for word in prompt.split()] for prompt in prompts])
        return torch.nn.functional.normalize(numbers, dim=1).requires_grad_()


@pytest.fixture
def images() -> Tensor:
    colours = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0.3, 0.4, 0]])
    return colours[:, :, None, None].expand(-1, -1, 2, 2).clone().requires_grad_()


def test_by_hand(images: Tensor) -> None:
    scorer: Any = Known()
    loss = clip_loss(scorer, images, ["1 0 0", "0 -1 0", "1 0 0"])
    torch.testing.assert_close(loss, torch.tensor((0 + 2 + 0.4) / 3))
    loss.backward()
    assert images.grad is not None
    # The third image: d(1 - cos) / d colour = -(u - cos v) / |colour|, divided by its 4 pixels and by the 3 images.
    expected = -(torch.tensor([1.0, 0, 0]) - 0.6 * torch.tensor([0.6, 0.8, 0])) / 0.5 / 4 / 3
    torch.testing.assert_close(images.grad[2, :, 0, 0], expected)


def test_prompts_must_match(images: Tensor) -> None:
    scorer: Any = Known()
    with pytest.raises(ValueError, match="3 images and 2 prompts: give one prompt for each image"):
        clip_loss(scorer, images, ["1 0 0", "0 1 0"])


def test_descending_it_raises_a_real_clips_score() -> None:
    torch.manual_seed(0)
    model = compact_clip.build(CONFIGS["b"]).eval().requires_grad_(False)
    scorer = ClipScorer(model, compact_clip.tokenizer())
    prompts = ["a man with a hat", "a woman with red hair"]
    images = torch.zeros(2, 3, 64, 64).requires_grad_()
    before = scorer.similarity(images, prompts)
    loss = clip_loss(scorer, images, prompts)
    torch.testing.assert_close(loss, 1 - before.mean())
    (slope,) = torch.autograd.grad(loss, images)
    after = scorer.similarity(images - 0.02 * slope.sign(), prompts)
    assert (after > before + 0.01).all()
    assert all(weight.grad is None for weight in model.parameters())

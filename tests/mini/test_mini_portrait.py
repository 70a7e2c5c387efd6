"""Tests of the text-to-3D model in the package: its pictures follow the prompts, and its identities differ."""

import pytest
import torch
from torch import Tensor

from dreamportrait.mini.eg3d.evaluation import spread
from dreamportrait.mini.models import from_pretrained
from dreamportrait.mini.publish import PROMPTS
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.text.clip_scorer import ClipScorer

pytestmark = pytest.mark.lengthy

SEEDS = 8


@pytest.fixture(scope="module")
def judge() -> ClipScorer:
    """Return a CLIP other than the one that conditions the generator."""
    return ClipScorer(*from_pretrained("mini/clip-b"))


@pytest.fixture(scope="module")
def seen(judge: ClipScorer) -> Tensor:  # [seeds, prompts, C]
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    drawn = [pipe(PROMPTS, seed=seed).colors[:, 0] for seed in range(SEEDS)]
    with torch.no_grad():
        return torch.stack([judge.image_features(images) for images in drawn])


def test_its_pictures_say_which_prompt_they_are_of(seen: Tensor, judge: ClipScorer) -> None:
    with torch.no_grad():
        scores = seen @ judge.text_features(list(PROMPTS)).T  # [seeds, prompts, prompts]
    right = scores.argmax(-1) == torch.arange(len(PROMPTS))
    assert right.float().mean() > 3 / len(PROMPTS)  # three times chance


def test_identities_of_a_prompt_differ(seen: Tensor) -> None:
    """Identities of a prompt must differ by more than 0.1. Real faces, with any captions, differ by 0.76."""
    assert all(spread(seen[:, i]) > 0.1 for i in range(len(PROMPTS)))

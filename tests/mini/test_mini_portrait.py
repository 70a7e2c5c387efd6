"""The text-to-3D model that comes with the package: it listens, and does not forget who it draws."""

import pytest
import torch
from torch import Tensor

from dreamportrait.mini.eg3d.evaluation import spread
from dreamportrait.mini.models import from_pretrained
from dreamportrait.mini.publish import PROMPTS
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.text.clip_scorer import ClipScorer

SEEDS = 8


@pytest.fixture(scope="module")
def judge() -> ClipScorer:
    """Another CLIP than the one that conditions."""
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
    """Those of real faces, whatever their captions, differ by 0.76."""
    assert all(spread(seen[:, i]) > 0.1 for i in range(len(PROMPTS)))

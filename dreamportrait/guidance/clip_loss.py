"""A CLIP as the only guide: what D-SDS is compared with (the paper's table 2a)."""

import torch
from torch import Tensor

from dreamportrait.metrics.clip_score import ClipScorer


def clip_loss(scorer: ClipScorer, images: Tensor, prompts: list[str]) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> []
    """1 minus the cosine of each image and its own prompt, averaged over the batch.

    Judge what it makes by another CLIP: pictures learn to please this one. Where a colour is outside -1 .. 1 there is
    no slope, as CLIP is shown the nearest colour that exists.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts: give one prompt for each image")
    with torch.no_grad():
        texts = scorer.text_features(prompts)  # [N, C]
    return (1 - (scorer.image_features(images) * texts).sum(1)).mean()

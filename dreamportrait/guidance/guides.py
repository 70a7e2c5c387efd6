"""Guidance losses of the guided stages, chosen by `guidance.kind`: D-SDS, SJC, or CLIP (table 2a of the paper)."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamportrait.core.config import Guidance
from dreamportrait.guidance.distillation import d_sds_loss, draw, sjc_loss
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.guidance.views import with_views
from dreamportrait.text.clip_scorer import ClipScorer

Guide = Callable[[Tensor, list[str], Tensor], Tensor]  # images [N, 3, R, R], prompts, cameras [N, 25] -> loss


class DiffusionGuide:
    """Guidance by D-SDS or SJC. t and noise are drawn with torch's CPU generator."""

    def __init__(self, prior: StableDiffusion, settings: Guidance) -> None:
        self.prior, self.settings = prior, settings
        self.null_words = prior.embed([""])  # [1, L, C]

    def __call__(self, images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
        s = self.settings
        words = self.prior.embed(with_views(prompts, camera) if s.views else prompts)  # [N, L, C]
        t, noise = draw(self.prior, len(images), s.t_min, s.t_max)
        words, null_words = words.to(images.device), self.null_words.to(images.device)
        if s.kind == "sjc":
            return sjc_loss(self.prior, images, words, null_words, t, noise, scale=s.scale)
        return d_sds_loss(
            self.prior, images, words, null_words, t, noise, scale=s.scale, weighting=s.weight, rescale=s.rescale
        )


class ClipGuide:
    def __init__(self, scorer: ClipScorer, settings: Guidance) -> None:
        self.scorer, self.settings = scorer, settings

    def __call__(self, images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
        return clip_loss(self.scorer, images, with_views(prompts, camera) if self.settings.views else prompts)


def clip_loss(scorer: ClipScorer, images: Tensor, prompts: list[str]) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> []
    """Return 1 minus the cosine of each image and its own prompt, averaged over the batch.

    Evaluate the results with another CLIP, because training overfits to this one. Colours outside -1 .. 1 get no
    gradient, because they are clamped before CLIP.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts: give one prompt for each image")
    with torch.no_grad():
        texts = scorer.text_features(prompts)  # [N, C]
    return (1 - (scorer.image_features(images) * texts).sum(1)).mean()

"""Guidance losses of the guided stages, chosen by `guidance.kind`.

sds is the paper's, clip the one it compares with (table 2a), sjc, csd, asd and dmd are further ones: docs/guidance.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamportrait.core.config import Guidance
from dreamportrait.guidance.differences import asd_gradient, csd_gradient, dmd_gradient, later_steps
from dreamportrait.guidance.distillation import carrying, column, draw, sds_gradient, sjc_gradient
from dreamportrait.guidance.fake_score import Fakes, FakeScore, Lesson, draw_lesson
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.guidance.views import with_views
from dreamportrait.text.clip_scorer import ClipScorer

# images [N, 3, R, R], prompts, cameras [N, 25] -> loss. Diffusion guides also take weights [N] of the samples.
Guide = Callable[..., Tensor]
DIFFUSION_KINDS = ("sds", "sjc", "csd", "asd", "dmd")


class DiffusionGuide:
    """Guidance by D-SDS, SJC, CSD or ASD. t and noise are drawn with torch's CPU generator."""

    def __init__(self, prior: StableDiffusion, settings: Guidance) -> None:
        self.prior, self.settings = prior, settings
        self.null_words = prior.embed([""])  # [1, L, C]

    def __call__(self, images: Tensor, prompts: list[str], camera: Tensor, weights: Tensor | None = None) -> Tensor:
        words = self.embed(prompts, camera).to(images.device)  # [N, L, C]
        t, noise = draw(self.prior, len(images), self.settings.t_min, self.settings.t_max)
        latents = self.prior.encode(images)  # [N, c, h, w]
        g = self.gradient(latents, t, noise, words)
        return carrying(latents, g if weights is None else column(weights) * g)

    def embed(self, prompts: list[str], camera: Tensor) -> Tensor:  # [N, L, C]
        return self.prior.embed(with_views(prompts, camera) if self.settings.views else prompts)

    def gradient(self, latents: Tensor, t: Tensor, noise: Tensor, words: Tensor) -> Tensor:  # [N, c, h, w]
        s, prior, null_words = self.settings, self.prior, self.null_words.to(words.device)
        schedule = prior.alphas_cumprod

        def guided(noisy: Tensor, t: Tensor) -> Tensor:
            return prior.predict(noisy, t, words, null_words, s.scale)

        def text(noisy: Tensor, t: Tensor) -> Tensor:
            return prior.predict(noisy, t, words, null_words, 1.0)

        def both(noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return prior.predict_both(noisy, t, words, null_words)

        given = latents, t, noise
        if s.kind == "sds":
            return sds_gradient(*given, guided, schedule, weighting=s.weight, rescale=s.rescale)
        if s.kind == "sjc":
            return sjc_gradient(*given, guided, schedule)
        if s.kind == "csd":
            return csd_gradient(*given, both, schedule, scale=s.scale, weighting=s.weight, rescale=s.rescale)
        if s.kind == "asd":
            draws, first = torch.rand(len(t)).to(t.device), round(s.t_min * len(schedule))
            later = later_steps(t, draws, first, len(schedule), s.eta)
            return asd_gradient(latents, t, later, noise, guided, text, schedule, weighting=s.weight, rescale=s.rescale)
        raise ValueError(f"guidance.kind={s.kind!r}: must be sds, sjc, csd or asd; MatchingGuide computes dmd")


class MatchingGuide(DiffusionGuide):
    """Guidance by distribution matching (DMD). It keeps the newest latents, from which its fake score learns."""

    def __init__(self, prior: StableDiffusion, settings: Guidance, fake_score: FakeScore) -> None:
        super().__init__(prior, settings)
        self.fake_score = fake_score
        self.newest: Fakes | None = None

    def gradient(self, latents: Tensor, t: Tensor, noise: Tensor, words: Tensor) -> Tensor:  # [N, c, h, w]
        prior, null_words = self.prior, self.null_words.to(words.device)

        def guided(noisy: Tensor, t: Tensor) -> Tensor:
            return prior.predict(noisy, t, words, null_words, self.settings.scale)

        def fake(noisy: Tensor, t: Tensor) -> Tensor:
            return self.fake_score.predict(noisy, t, words)

        self.newest = Fakes(latents.detach(), words)
        return dmd_gradient(latents, t, noise, guided, fake, prior.alphas_cumprod)

    @torch.no_grad()
    def fakes(self, images: Tensor, prompts: list[str], camera: Tensor) -> Fakes:
        return Fakes(self.prior.encode(images), self.embed(prompts, camera).to(images.device))

    def draw_lessons(self, updates: int) -> tuple[Fakes, list[Lesson]]:
        """Return the newest latents and the draws of each update of the fake score on them."""
        fakes, self.newest = self.newest, None
        if fakes is None:
            raise ValueError("the fake score has nothing to learn from; compute the guidance loss first")
        return fakes, [draw_lesson(self.prior, len(fakes.latents)) for _ in range(updates)]


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

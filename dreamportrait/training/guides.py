"""What pulls pictures towards their prompts in the guided stages, chosen by `guidance.kind`."""

from torch import Tensor

from dreamportrait.config import Guidance
from dreamportrait.guidance.clip_loss import clip_loss
from dreamportrait.guidance.distillation import d_sds_loss, draw, sjc_loss
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.guidance.views import with_views
from dreamportrait.metrics.clip_score import ClipScorer


class DiffusionGuide:
    """D-SDS, or SJC. t and noise are drawn from torch's generator of the CPU."""

    def __init__(self, prior: StableDiffusion, settings: Guidance) -> None:
        self.prior, self.settings = prior, settings
        self.null_words = prior.embed([""])  # [1, L, C]

    def __call__(self, images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
        s = self.settings
        words = self.prior.embed(with_views(prompts, camera) if s.views else prompts)  # [N, L, C]
        t, noise = draw(self.prior, len(images), s.t_min, s.t_max)
        given = (self.prior, images, words.to(images.device), self.null_words.to(images.device), t, noise)
        if s.kind == "sjc":
            return sjc_loss(*given, scale=s.scale)
        return d_sds_loss(*given, scale=s.scale, weighting=s.weight, rescale=s.rescale)


class ClipGuide:
    def __init__(self, scorer: ClipScorer, settings: Guidance) -> None:
        self.scorer, self.settings = scorer, settings

    def __call__(self, images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
        return clip_loss(self.scorer, images, with_views(prompts, camera) if self.settings.views else prompts)

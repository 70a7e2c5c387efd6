"""The models that the baselines use, loaded once, and the draws of a head: its latent and its cameras."""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from dreamportrait.baselines.config import Baselines
from dreamportrait.eg3d.folder import load_generator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.prompts import Embed
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.metrics.subject import SAMPLES, latents
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.prior.space import WSpace
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.photo import space_of
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.loading import load_clip


@dataclass(frozen=True)
class Tools:
    """All models are frozen. No method loads anything, so its time is that of its own work."""

    generator: TriPlaneGenerator  # pretrained, without text
    space: WSpace  # of its w
    pipe: DreamPortraitPipeline  # the text-to-3D generator
    see: PictureFeatures | None  # of the CLIP that the inverter of `pipe` reads pictures with, if it has one
    prior: StableDiffusion
    scheduler: DDIMScheduler
    scorer: ClipScorer  # guides
    cameras: Tensor  # [M, 25] of the data set
    device: torch.device

    def latent(self, seed: int, number: int) -> Tensor:  # [1, z_dim]
        """Return the latent that `dreamportrait evaluate` gives sample `number`."""
        return latents(self.generator.config.z_dim, seed, SAMPLES, [number]).to(self.device)

    def camera(self) -> Tensor:  # [1, 25]
        """Draw a camera of the data set, with torch's global generator."""
        return self.cameras[torch.randint(len(self.cameras), (1,))].to(self.device)

    @cached_property
    def front(self) -> Tensor:  # [1, 25]
        return self.generator.config.around([0.0]).to(self.device)

    def own_x(self, seed: int, number: int) -> Tensor:  # [1, w_dim] coordinates
        """Return the coordinates of the w that the pretrained generator has for a latent."""
        with torch.no_grad():
            return self.space.enter(self.generator.map(self.latent(seed, number), self.front)[:, 0])


def load_tools(config: Baselines, cameras: Tensor, device: torch.device, offline: bool = False) -> Tools:
    generator = load_generator(build.pretrained_folder(config.pretrained)).to(device).requires_grad_(False)
    prior = load_stable_diffusion(config.diffusion, offline=offline, device=device)
    prior.embed = remembered(prior.embed)
    clip, tokenizer = load_clip(config.clip, offline, device)
    pipe = DreamPortraitPipeline.from_pretrained(config.model, device=device, offline=offline)
    see = None if pipe.inverter is None else PictureFeatures(load_clip(pipe.text.clip, offline, device).model)
    scheduler = DDIMScheduler.from_pretrained(prior.origin, subfolder="scheduler", local_files_only=True)
    scorer = ClipScorer(clip.eval().requires_grad_(False), tokenizer)
    return Tools(generator, space_of(generator), pipe, see, prior, scheduler, scorer, cameras, device)


def remembered(embed: Embed) -> Embed:
    """Return a function that encodes the same prompts only once in a row, as an optimisation asks for them."""
    known: dict[str, Tensor] = {}

    def found(prompts: list[str]) -> Tensor:
        if any(prompt not in known for prompt in prompts):
            known.clear()
            known.update((prompt, words) for prompt, words in zip(prompts, embed(prompts), strict=True))
        return torch.stack([known[prompt] for prompt in prompts])

    return found

"""Tuning of a head to a prompt by score distillation: first its shape, then its texture.

Each step draws the head from random sides and moves its weights by the gradient of d_sds_loss, or of the contrast
between the prompt and a plain one. As the note on score distillation with morphable models does, gradients are clipped
and weights pulled to the mean. The decay is decoupled: Adam moves a weight by about lr a step, so that one whose
gradient always has the same sign settles at 1 / decay deviations, and one that only sees noise near 0.

`contrast` replaces the Gaussian noise of SDS by the prediction for a plain prompt, w s (eps_text - eps_plain). What all
prompts have in common cancels.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import orbit
from dreamportrait.guidance.differences import csd_gradient
from dreamportrait.guidance.distillation import Weighting, carrying, draw, sds_gradient
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.head import SIZE, WALL, Head
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.scenes import random_scene
from dreamportrait.systems.heads.skinning import shaped, to_world
from dreamportrait.systems.heads.uv import atlas, dilated

PLAIN = "a person"
LIMIT = 2.5  # weights stay within so many standard deviations
Mode = Literal["sds", "contrast"]


class Prior(Protocol):
    """A diffusion model with its text encoder, such as guidance.stable_diffusion.StableDiffusion."""

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def alphas_cumprod(self) -> Tensor: ...
    @property
    def image_size(self) -> int: ...
    def embed(self, prompts: list[str], /) -> Tensor: ...
    def encode(self, images: Tensor) -> Tensor: ...
    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor: ...
    def predict_both(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Settings:
    """How one stage is tuned. The defaults are those of the shape, for the miniature world."""

    steps: int = 40
    lr: float = 0.08
    decay: float = 1.2
    clip: float = 1.0  # largest norm of the gradient
    views: int = 8
    mode: Mode = "contrast"
    scale: float = 8.0
    weighting: Weighting = "sigma_squared"
    rescale: float = 0.5
    t_min: float = 0.3
    t_max: float = 0.98
    t_last: float = 0.98  # t_max falls to this value
    smoothness: float = 0.0  # weight of the total variation of a texture's change


SHAPE = Settings()
TEXTURE = Settings(steps=150, lr=0.02, decay=3.0, mode="sds", t_last=0.5, smoothness=1e-3)
DILATE_EVERY = 20  # steps
SHOWN = 8  # pictures of the evolution


def optimise(
    model: HeadModel,
    prompt: str,
    prior: Prior,
    *,
    seed: int = 0,
    shape: Settings | None = SHAPE,  # None: keep the mean shape
    texture: Settings | None = TEXTURE,  # None: keep the mean texture
) -> Head:
    """Tune a head to a prompt. The same seed gives the same head."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt={prompt!r}: must be a text that says how the head looks")
    if model.mean_texture is None:
        raise ValueError(f"head model {model.name!r} has no mean texture to start from")
    words = (prior.embed([prompt]), prior.embed([""]), prior.embed([PLAIN]))
    tuning = Tuning(model, prior, words, seed)
    beta, mean = torch.zeros(model.num_shapes), model.mean_texture
    if shape is not None:
        beta = tuning.shape(beta, mean, shape)
    painted = mean if texture is None else tuning.texture(beta, mean, texture)
    return Head(model, beta, painted, prompt, seed, evolution=tuple(tuning.evolution))


class Tuning:
    """The loop for one prompt, with its random numbers and the pictures of its evolution."""

    def __init__(self, model: HeadModel, prior: Prior, words: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
        self.model, self.prior = model, prior
        self.words, self.null_words, self.plain_words = words
        self.generator = torch.Generator().manual_seed(seed)
        self.evolution: list[Tensor] = []

    def shape(self, beta: Tensor, texture: Tensor, s: Settings) -> Tensor:  # [m], [3, T, T] -> [m]
        weights = beta.clone().requires_grad_()
        optimizer = torch.optim.AdamW([weights], lr=s.lr, betas=(0.9, 0.99), weight_decay=s.decay)
        for step in range(s.steps):
            loss = self._distil(weights, texture, step, s)
            self._descend(loss, weights, optimizer, s)
            with torch.no_grad():
                weights.clamp_(-LIMIT, LIMIT)
        return weights.detach()

    def texture(self, beta: Tensor, mean: Tensor, s: Settings) -> Tensor:  # [m], [3, T, T] -> [3, T, T]
        mask = self._painted(mean.shape[1])
        delta = torch.zeros_like(mean).requires_grad_()
        optimizer = torch.optim.AdamW([delta], lr=s.lr, betas=(0.9, 0.99), weight_decay=s.decay)
        for step in range(s.steps):
            loss = self._distil(beta, _within(mean + delta), step, s)
            self._descend(loss + s.smoothness * _variation(delta), delta, optimizer, s)
            if (step + 1) % DILATE_EVERY == 0 or step + 1 == s.steps:
                with torch.no_grad():
                    delta.copy_(dilated(delta, mask))
        return (mean + delta.detach()).clamp(0, 1)

    def _distil(self, beta: Tensor, texture: Tensor, step: int, s: Settings) -> Tensor:  # []
        """Return a loss with the gradient of score distillation, from random views of the head."""
        scene = random_scene(s.views, self.generator)
        vertices = to_world(self.model, shaped(self.model, beta[None]))
        size = self.prior.image_size
        images = reduced(render(vertices, self.model, texture, scene.cameras, 2 * size, scene.backgrounds).image)
        if step % max(1, s.steps // SHOWN) == 0:
            self.evolution.append(self._front(vertices.detach(), texture.detach()))
        t_max = s.t_max + (s.t_last - s.t_max) * step / max(1, s.steps - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            t, noise = draw(self.prior, s.views, s.t_min, t_max)
        latents = self.prior.encode(images)
        return carrying(latents, self._gradient(latents.detach(), t, noise, s))

    def _gradient(self, latents: Tensor, t: Tensor, noise: Tensor, s: Settings) -> Tensor:
        words, alphas = self.words.expand(s.views, -1, -1), self.prior.alphas_cumprod
        if s.mode == "contrast":
            plain = self.plain_words
            return csd_gradient(
                latents,
                t,
                noise,
                lambda noisy, t: self.prior.predict_both(noisy, t, words, plain),
                alphas,
                scale=s.scale,
                weighting=s.weighting,
                rescale=0.0,
            )
        return sds_gradient(
            latents,
            t,
            noise,
            lambda noisy, t: self.prior.predict(noisy, t, words, self.null_words, s.scale),
            alphas,
            weighting=s.weighting,
            rescale=s.rescale,
        )

    def _descend(self, loss: Tensor, weights: Tensor, optimizer: torch.optim.Optimizer, s: Settings) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weights], s.clip, error_if_nonfinite=True)
        optimizer.step()

    def _front(self, vertices: Tensor, texture: Tensor) -> Tensor:  # [3, R, R]
        camera = orbit([0.0], 0.0, RADIUS, (0.0, 0.0, 0.0))
        with torch.no_grad():
            return render(vertices, self.model, texture, camera, SIZE, torch.tensor(WALL)).image[0]

    def _painted(self, size: int) -> Tensor:  # [T, T]
        """Return the texels that the mesh uses."""
        assert self.model.uv is not None
        assert self.model.uv_faces is not None
        return atlas(self.model.uv, self.model.uv_faces, size).mask


def _within(texture: Tensor) -> Tensor:
    """Clamp a texture to 0 .. 1. The gradient passes as if it were not clamped."""
    return texture + (texture.clamp(0, 1) - texture).detach()


def _variation(x: Tensor) -> Tensor:  # [C, T, T] -> []
    """Return the total variation: the sum of the differences between neighbours."""
    return x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum()

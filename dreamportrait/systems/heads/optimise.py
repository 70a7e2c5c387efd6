"""Tuning of a head to a prompt by score distillation: first its shape, then its texture.

Each step draws the head from random sides and moves its weights by the gradient of d_sds_loss, or of the contrast
between the prompt and a plain one. As the note on score distillation with morphable models does, gradients are clipped
and weights pulled to the mean; descent.py has the steps. Shapes follow pictures only where hair leaves the head bare.

`contrast` replaces the Gaussian noise of SDS by the prediction for a plain prompt, w s (eps_text - eps_plain). What all
prompts have in common cancels.
"""

import logging
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import orbit
from dreamportrait.guidance.differences import csd_gradient
from dreamportrait.guidance.distillation import Weighting, carrying, draw, sds_gradient
from dreamportrait.guidance.views import VIEWS, views
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.behind import outside, spread, well_shown
from dreamportrait.systems.heads.descent import Descent
from dreamportrait.systems.heads.head import SIZE, WALL, Head
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.regions import bare
from dreamportrait.systems.heads.render import Shading, reduced, render
from dreamportrait.systems.heads.scenes import Scene, Surroundings, random_scene, reach
from dreamportrait.systems.heads.skinning import shaped, to_world
from dreamportrait.systems.heads.uv import Atlas, Gutter, atlas, dilated, gutter

_log = logging.getLogger(__name__)

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

    steps: int = 18
    lr: float = 0.16
    decay: float = 1.2
    l2: Literal["decoupled", "coupled"] = "decoupled"  # coupled: decay is the weight of a plain L2 loss
    floor: float = 1.0  # share of the largest gradient by which smaller ones are divided; 0: Adam
    clip: float = 1.0  # largest norm of the gradient
    views: int = 6
    mode: Mode = "contrast"
    scale: float = 8.0
    weighting: Weighting = "sigma_squared"
    rescale: float = 0.5
    t_min: float = 0.3
    t_max: float = 0.98
    t_last: float = 0.98  # t_max falls to this value
    smoothness: float = 0.0  # weight of the total variation of a texture's change
    surroundings: Surroundings = "miniworld"
    shading: Shading = "lamp"
    finer: int = 1  # pictures are drawn so many times larger than the diffusion model's, and averaged


SHAPE = Settings()
TEXTURE = Settings(steps=40, lr=0.07, decay=1.2, floor=0.2, mode="sds", t_last=0.5, smoothness=1e-3)
# For full-size models: numbers of the literature, which have not been run here.
FULL = {"views": 4, "rescale": 0.0, "t_min": 0.02, "surroundings": "wide", "floor": 0.0}
FULL_SHAPE = Settings(steps=400, lr=0.02, decay=0.4, scale=50.0, **FULL)  # type: ignore[arg-type]
FULL_TEXTURE = Settings(steps=1500, lr=2e-3, decay=0.1, mode="sds", scale=7.5, t_last=0.5, smoothness=1e-3, **FULL)  # type: ignore[arg-type]
SMALL = 128  # pixels; diffusion models of smaller pictures are tuned as the miniature one
DILATE_EVERY = 20  # steps
SHOWN = 8  # pictures of the evolution
LEAST = 0.2  # pixels a texel covers at least, as a share of the median: the gradients of others are mostly noise


def settings_for(prior: Prior) -> tuple[Settings, Settings]:
    """Return the settings of shape and texture for a diffusion model."""
    return (SHAPE, TEXTURE) if prior.image_size < SMALL else (FULL_SHAPE, FULL_TEXTURE)


def optimise(
    model: HeadModel,
    prompt: str,
    prior: Prior,
    *,
    seed: int = 0,
    shape: Settings | None = SHAPE,  # None: keep the mean shape. settings_for(prior) has those of larger models
    texture: Settings | None = TEXTURE,  # None: keep the mean texture
) -> Head:
    """Tune a head to a prompt. The same seed gives the same head."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt={prompt!r}: must be a text that says how the head looks")
    if model.mean_texture is None:
        raise ValueError(f"head model {model.name!r} has no mean texture to start from")
    tuning = Tuning(model, prior, prompt, seed)
    beta, mean = torch.zeros(model.num_shapes), model.mean_texture
    if shape is not None:
        beta = tuning.shape(beta, mean, shape)
    painted = mean if texture is None else tuning.texture(beta, mean, texture)
    return Head(model, beta, painted, prompt, seed, evolution=tuple(tuning.evolution))


class Tuning:
    """The loop for one prompt, with its random numbers and the pictures of its evolution."""

    def __init__(self, model: HeadModel, prior: Prior, prompt: str, seed: int) -> None:
        self.model, self.prior, self.prompt = model, prior, prompt
        self.null_words, self.plain_words = prior.embed([""]), prior.embed([PLAIN])
        self.words = {kind: prior.embed(prompts) for kind, prompts in self._prompts().items()}  # [1 or 3, L, C]
        self.generator = torch.Generator().manual_seed(seed)
        self.evolution: list[Tensor] = []
        self.clipped = 0.0  # share of the texels beyond black or white, which is why colours look saturated

    def _prompts(self) -> dict[Surroundings, list[str]]:
        """Return the prompts; from all sides, one for each view."""
        return {"miniworld": [self.prompt], "wide": [f"{self.prompt.rstrip(' .,;')}, {view}" for view in VIEWS]}

    def shape(self, beta: Tensor, texture: Tensor, s: Settings) -> Tensor:  # [m], [3, T, T] -> [m]
        weights = beta.clone().requires_grad_()
        descent, moves = _descent(weights, s), bare(self.model)[:, None]
        for step in range(s.steps):
            vertices = shaped(self.model, weights[None])
            vertices = torch.where(moves, vertices, vertices.detach())
            descent.step(self._distil(vertices, texture, step, s))
            with torch.no_grad():
                weights.clamp_(-LIMIT, LIMIT)
        return weights.detach()

    def texture(self, beta: Tensor, mean: Tensor, s: Settings) -> Tensor:  # [m], [3, T, T] -> [3, T, T]
        places, border = self._atlas(mean.shape[1])
        vertices, delta = shaped(self.model, beta[None]), torch.zeros_like(mean).requires_grad_()
        descent = _descent(delta, s, per=self._pixels(vertices, mean, s))
        for step in range(s.steps):
            loss = self._distil(vertices, _within(mean + delta), step, s)
            descent.step(loss + s.smoothness * _variation(delta))
            if (step + 1) % DILATE_EVERY == 0 or step + 1 == s.steps:
                with torch.no_grad():
                    delta.copy_(border.fill(dilated(delta, places.mask)))
        outer, yaw = outside(self.model, places), math.degrees(reach(s.surroundings)[0])
        shown = well_shown(self.model, to_world(self.model, vertices)[0].detach(), places, [-yaw, 0.0, yaw])
        whole = mean + spread(delta.detach(), shown, outer, border)
        used = whole[:, places.mask]
        self.clipped = float(((used < 0) | (used > 1)).any(0).float().mean())
        _log.info("%.1f %% of the texels lie beyond black or white and are clipped", 100 * self.clipped)
        return whole.clamp(0, 1)

    def _pixels(self, vertices: Tensor, texture: Tensor, s: Settings) -> Tensor:  # [1, V, 3] -> [1, T, T]
        """Return how many pixels of a view a texel covers, on average, bounded from below.

        Gradients per pixel are independent of how dense a part of the atlas is. Eyes have many texels for few pixels.
        """
        yaw = math.degrees(reach(s.surroundings)[0])
        cameras = orbit([-yaw, -yaw / 2, 0.0, yaw / 2, yaw], 0.0, RADIUS, (0.0, 0.0, 0.0))
        blank, black = torch.zeros_like(texture).requires_grad_(), torch.zeros(3)
        size = s.finer * self.prior.image_size
        drawn = render(to_world(self.model, vertices), self.model, blank, cameras, size, black, "none")
        (found,) = torch.autograd.grad(drawn.image.sum() / (2 * len(cameras) * s.finer**2), blank)  # images: -1 .. 1
        return found[:1].clamp_min(LEAST * float(found[found > 0].median()))

    def _distil(self, vertices: Tensor, texture: Tensor, step: int, s: Settings) -> Tensor:  # [1, V, 3] -> []
        """Return a loss with the gradient of score distillation, from random views of the head."""
        scene = random_scene(s.views, self.generator, s.surroundings)
        vertices = to_world(self.model, vertices)
        if step % max(1, s.steps // SHOWN) == 0:
            self.evolution.append(self._front(vertices.detach(), texture.detach()))
        size = s.finer * self.prior.image_size
        drawn = render(vertices, self.model, texture, scene.cameras, size, scene.backgrounds, s.shading)
        return self._guided(reduced(drawn.image, s.finer), scene, step, s)

    def _guided(self, images: Tensor, scene: Scene, step: int, s: Settings) -> Tensor:  # [N, 3, R, R] -> []
        t_max = s.t_max + (s.t_last - s.t_max) * step / max(1, s.steps - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            t, noise = draw(self.prior, s.views, s.t_min, t_max)
        latents = self.prior.encode(images)
        return carrying(latents, self._gradient(latents.detach(), t, noise, self._words(scene, s), s))

    def _words(self, scene: Scene, s: Settings) -> Tensor:  # [N, L, C]
        """Return the prompt for each view."""
        words = self.words[s.surroundings]
        if len(words) == 1:
            return words.expand(s.views, -1, -1)
        return words[[VIEWS.index(view) for view in views(scene.cameras)]]

    def _gradient(self, latents: Tensor, t: Tensor, noise: Tensor, words: Tensor, s: Settings) -> Tensor:
        alphas = self.prior.alphas_cumprod
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

    def _front(self, vertices: Tensor, texture: Tensor) -> Tensor:  # [3, R, R]
        camera = orbit([0.0], 0.0, RADIUS, (0.0, 0.0, 0.0))
        with torch.no_grad():
            return render(vertices, self.model, texture, camera, SIZE, torch.tensor(WALL)).image[0]

    def _atlas(self, size: int) -> tuple[Atlas, Gutter]:
        """Return the texels that the mesh uses, and those beside them."""
        m = self.model
        assert m.uv is not None and m.uv_faces is not None
        places = atlas(m.uv, m.uv_faces, size)
        return places, gutter(places, *(x.numpy() for x in (m.uv, m.uv_faces, m.v_template, m.faces)))


def _descent(weights: Tensor, s: Settings, per: Tensor | None = None) -> Descent:
    coupled = s.l2 == "coupled"
    return Descent(weights, lr=s.lr, decay=s.decay, floor=s.floor, coupled=coupled, clip=s.clip, per=per)


def _within(texture: Tensor) -> Tensor:
    """Clamp a texture to 0 .. 1. The gradient passes as if it were not clamped."""
    return texture + (texture.clamp(0, 1) - texture).detach()


def _variation(x: Tensor) -> Tensor:  # [C, T, T] -> []
    """Return the total variation: the sum of the differences between neighbours."""
    return x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum()

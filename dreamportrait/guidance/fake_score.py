"""The fake score of distribution matching: a denoiser that learns the generator's own latents while it trains.

    fake = FakeScore(prior, rank=None)                  # starts as the frozen model
    lesson = draw_lesson(prior, len(latents))
    fake.loss(Fakes(latents, words), lesson).backward()
    fake.predict(noisy, t, words)                       # eps_psi = E_q[eps | x_t, prompt]

A small UNet is copied and trained as a whole. A large one stays frozen and shared with the prior; only low-rank
additions to its attention layers (LoRA, Hu et al. 2021) are trained.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from dreamportrait.guidance.distillation import draw, noised
from dreamportrait.guidance.stable_diffusion import StableDiffusion, run_unet
from dreamportrait.weights.lora import LowRank

NO_TEXT = 0.1  # share of samples whose prompt is dropped, so that eps_psi without text is learned too
_ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")  # the linear layers of an attention block
_EPSILON = 1e-12


class Fakes(NamedTuple):
    """Latents of generated pictures and the word features of their prompts. They carry no gradient."""

    latents: Tensor  # [N, c, h, w]
    words: Tensor  # [N, L, C]

    def some(self, count: int) -> "Fakes":
        """Draw `count` samples with torch's CPU generator, with replacement."""
        rows = torch.randint(len(self.latents), (count,)).to(self.latents.device)
        return Fakes(self.latents[rows], self.words[rows])


class Lesson(NamedTuple):
    """The random draws of one update."""

    t: Tensor  # [N]
    noise: Tensor  # [N, c, h, w]
    silent: Tensor  # [N], whether the prompt is dropped


def draw_lesson(prior: StableDiffusion, count: int) -> Lesson:
    """Draw steps from the whole schedule, noise, and which prompts are dropped, with torch's CPU generator."""
    t, noise = draw(prior, count, 0, 1)
    return Lesson(t, noise, (torch.rand(count) < NO_TEXT).to(t.device))


class FakeScore(nn.Module):
    """A trained denoiser that starts as the frozen model. rank: of LoRA. None = a full copy, in float32."""

    null_words: Tensor  # [1, L, C]
    warm: Tensor  # [], whether the warm-up is done

    def __init__(self, prior: StableDiffusion, rank: int | None) -> None:
        super().__init__()
        self.prior = prior  # not an nn.Module, so it is not saved in checkpoints
        self.copy, self.adapters = _copied(prior.unet) if rank is None else None, nn.ModuleDict()
        if rank is not None:
            numbers = torch.Generator().manual_seed(0)
            for name, layer in _attention_layers(prior.unet).items():
                self.adapters[name.replace(".", "-")] = Added(layer, rank, numbers)
        self.register_buffer("null_words", prior.embed([""]), persistent=False)
        self.register_buffer("warm", torch.zeros([], dtype=torch.long))

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor) -> Tensor:  # [N, c, h, w], float32
        """Return the predicted noise eps_psi, without guidance. Gradients flow to the trained weights."""
        if self.copy is not None:
            return self.prior.noise_from(run_unet(self.copy, noisy, t, words), noisy, t)
        with self._adapted():
            return self.prior.noise_from(run_unet(self.prior.unet, noisy, t, words), noisy, t)

    def loss(self, fakes: Fakes, lesson: Lesson) -> Tensor:  # []
        """Return the mean of |eps_psi(x_t) - eps|^2, where some prompts are dropped."""
        words = torch.where(lesson.silent[:, None, None], self.null_words, fakes.words)
        return (self.predict(self._noisy(fakes, lesson), lesson.t, words) - lesson.noise).square().mean()

    @torch.no_grad()
    def monitors(self, fakes: Fakes, lesson: Lesson) -> dict[str, Tensor]:
        """Return two ratios that show whether the fake score follows the generator.

        text_sensitivity: |eps_psi(prompt) - eps_psi(no text)| / |eps_c - eps_0|. Near 0, it has forgotten the text.
        fake_loss_ratio: its loss divided by the frozen model's on the same latents. It must be below 1.
        """
        noisy, (t, noise, _) = self._noisy(fakes, lesson), lesson
        text, null = self.prior.predict_both(noisy, t, fakes.words, self.null_words)
        own = self.predict(noisy, t, fakes.words)
        own_null = self.predict(noisy, t, self.null_words.expand_as(fakes.words))
        return {
            "text_sensitivity": (own - own_null).norm() / (text - null).norm().clamp_min(_EPSILON),
            "fake_loss_ratio": (own - noise).square().mean() / (text - noise).square().mean().clamp_min(_EPSILON),
        }

    def _noisy(self, fakes: Fakes, lesson: Lesson) -> Tensor:
        return noised(fakes.latents, lesson.noise, self.prior.alphas_cumprod[lesson.t])

    @contextmanager
    def _adapted(self) -> Iterator[None]:
        """Add the adapters to the shared UNet inside the `with` block."""
        layers = _attention_layers(self.prior.unet)
        handles = [layers[name.replace("-", ".")].register_forward_hook(a) for name, a in self.adapters.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Added(LowRank):
    """A forward hook that adds up(down(x)) to the output of a frozen linear layer."""

    def __init__(self, layer: nn.Linear, rank: int, numbers: torch.Generator) -> None:
        super().__init__(layer.out_features, layer.in_features, rank, numbers)

    def forward(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.apply_to(inputs[0]).to(output.dtype)


@torch.no_grad()
def contraction_ratio(fake: FakeScore, fakes: Fakes, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numerator and the denominator of rho(t), and the loss of the frozen model, each [N].

    All are means over the elements of a sample.

        rho(t) = E |sqrt(a_t) / sigma_t (x' - E_q[x' | x_t])|^2  /  E |eps_c - eps_psi|^2

    The numerator is the part of D-SDS that pulls a latent to the mean of the generator's own latents; it equals
    |eps_psi - eps|^2. The denominator is the difference of the two distributions. rho far below 1 at every t means that
    distribution matching has nothing to remove.
    """
    noisy = noised(fakes.latents, noise, fake.prior.alphas_cumprod[t])
    own = fake.predict(noisy, t, fakes.words)
    text = fake.prior.predict(noisy, t, fakes.words, fake.null_words, 1.0)
    pull, gap, teacher = ((a - b).square().mean((1, 2, 3)) for a, b in ((own, noise), (text, own), (text, noise)))
    return pull, gap, teacher


def count_trained(unet: nn.Module, rank: int | None) -> int:
    """Return the number of weights that a fake score of this UNet trains."""
    if rank is None:
        return sum(p.numel() for p in unet.parameters())
    return sum(rank * (layer.in_features + layer.out_features) for layer in _attention_layers(unet).values())


def _copied(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    copied: Any = copy.deepcopy(unet)
    trained: UNet2DConditionModel = copied.float().requires_grad_(True).train()
    return trained


def _attention_layers(unet: nn.Module) -> dict[str, nn.Linear]:
    """Return the query, key, value and output layers of all attention blocks, by name."""
    return {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear) and ".attn" in name and name.endswith(_ADAPTED)
    }

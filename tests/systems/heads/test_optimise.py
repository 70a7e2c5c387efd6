"""Tests of tuning by score distillation: with a prior whose optimum is known, and with the miniature one."""

from dataclasses import replace

import pytest
import torch
from small_heads import wall
from torch import Tensor

from dreamportrait.systems.heads.optimise import (
    FULL_SHAPE,
    FULL_TEXTURE,
    LIMIT,
    SHAPE,
    TEXTURE,
    Settings,
    Tuning,
    optimise,
    settings_for,
)


class Wish:
    """A prior in pixels whose prediction always points from a wanted brightness to the picture's, as SDS descends.

    Noise is predicted exactly but for this direction, so that the gradient at a picture is w s (picture - wanted).
    """

    latent_shape = (3, 8, 8)
    image_size = 8
    alphas_cumprod = torch.linspace(0.99, 0.01, 100)

    def __init__(self, wanted: Tensor) -> None:
        self.wanted, self.seen = wanted, torch.zeros(0)

    def embed(self, prompts: list[str]) -> Tensor:
        return torch.tensor([1.0 if prompt == "wanted" else 0.0 for prompt in prompts])[:, None, None]

    def encode(self, images: Tensor) -> Tensor:
        self.seen = images.detach()
        return images

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor:
        told, free = self.predict_both(noisy, t, words, null_words)
        return free + guidance_scale * (told - free)

    def predict_both(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor) -> tuple[Tensor, Tensor]:
        a = self.alphas_cumprod[t][:, None, None, None]
        noise = (noisy - a.sqrt() * self.seen) / (1 - a).sqrt()
        return noise + words[:, :, :, None] * (self.seen - self.wanted), noise


BRIGHT = Wish(torch.full((3, 1, 1), 0.6))
QUICK = Settings(steps=30, lr=0.05, decay=0.0, views=2, scale=1.0, rescale=0.0, finer=2)


@pytest.mark.parametrize("mode", ["sds", "contrast"])
def test_a_texture_reaches_what_is_wanted(mode: str) -> None:
    model = wall()
    head = optimise(model, "wanted", BRIGHT, shape=None, texture=replace(QUICK, mode=mode))  # type: ignore[arg-type]
    # Pictures are from -1 to 1, and the lamp on a wall that faces z is 0.66 + 0.42 * 0.73 = 0.967.
    middle = head.texture[:, 1:3, 1:3].mean()
    assert middle.item() == pytest.approx(0.8 / 0.967, abs=0.05)
    assert head.beta.eq(0).all()


def test_without_decay_weights_stop_at_the_limit_and_with_it_before() -> None:
    """Walls of the scene are brighter or darker than the mesh, but never as dark as wanted: it grows all the time."""
    model = wall(shapedirs=wall().v_template[..., None] * 0.2, mean_texture=torch.zeros(3, 4, 4))
    dark = Wish(torch.full((3, 1, 1), -1.0))
    settings = replace(QUICK, steps=160, lr=0.1)
    free = optimise(model, "wanted", dark, shape=settings, texture=None)
    assert free.beta.item() == LIMIT
    held = optimise(model, "wanted", dark, shape=replace(settings, decay=1.0), texture=None)
    # Adam's steps have length lr while the sign stays: the weight settles at 1 / decay.
    assert 0.8 < held.beta.item() < 1.1


def test_coupled_decay_is_part_of_the_gradient() -> None:
    """Adam divides by the size of the gradient, so that a plain L2 loss alone moves weights at full speed."""
    model = wall(shapedirs=wall().v_template[..., None] * 0.2)
    settings = replace(QUICK, steps=8, scale=0.0, lr=0.1, decay=1.0)
    held = {}
    for l2 in ("decoupled", "coupled"):
        tuning = Tuning(model, BRIGHT, "wanted", 0)
        held[l2] = tuning.shape(torch.tensor([1.0]), model.mean_texture, replace(settings, l2=l2)).item()  # type: ignore[arg-type]
    assert held["decoupled"] == pytest.approx(0.9**8, rel=1e-3)  # 1 - lr decay each step
    assert held["coupled"] == pytest.approx(0.2, abs=0.05)  # steps of lr


def test_clipped_texels_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tuning = Tuning(wall(), Wish(torch.full((3, 1, 1), 4.0)), "wanted", 0)
    texture = tuning.texture(torch.zeros(1), torch.full((3, 4, 4), 0.5), replace(QUICK, lr=0.2))
    assert tuning.clipped > 0.9
    assert "of the texels lie beyond black or white" in caplog.text
    assert texture.max() == 1


def test_large_models_see_all_sides_and_are_told_which() -> None:
    class Large(Wish):
        image_size = 512

        def embed(self, prompts: list[str]) -> Tensor:
            asked.append(prompts)
            return torch.arange(len(prompts)).float()[:, None, None]

        def predict_both(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor) -> tuple[Tensor, Tensor]:
            told.append(words.flatten().tolist())
            return super().predict_both(noisy, t, words, null_words)

    asked: list[list[str]] = []
    told: list[list[float]] = []
    assert settings_for(BRIGHT) == (SHAPE, TEXTURE)
    prior = Large(torch.zeros(3, 1, 1))
    assert settings_for(prior) == (FULL_SHAPE, FULL_TEXTURE)
    prior.image_size = 8
    optimise(wall(), "a man.", prior, shape=replace(FULL_SHAPE, steps=4), texture=None)
    assert ["a man, front view", "a man, side view", "a man, back view"] in asked
    assert {word for row in told for word in row} == {0, 1}  # from the front and from the sides, never from behind


def test_the_seed_decides() -> None:
    model = wall()
    first, again, other = (
        optimise(model, "wanted", BRIGHT, seed=seed, shape=replace(QUICK, steps=3), texture=replace(QUICK, steps=3))
        for seed in (0, 0, 1)
    )
    assert first.beta.equal(again.beta)
    assert first.texture.equal(again.texture)
    assert not first.texture.equal(other.texture)
    assert len(first.evolution) == 6


def test_random_numbers_of_others_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    optimise(wall(), "wanted", BRIGHT, shape=replace(QUICK, steps=2), texture=None)
    assert torch.rand(1).equal(expected)


@pytest.mark.parametrize("prompt", ["", "  ", None])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="must be a text that says how the head looks"):
        optimise(wall(), prompt, BRIGHT)


def test_models_without_a_texture_are_refused() -> None:
    with pytest.raises(ValueError, match="has no mean texture to start from"):
        optimise(wall(mean_texture=None), "wanted", BRIGHT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "sign"), [("a man with short brown hair", 1), ("a woman with short brown hair", -1)]
)
def test_the_miniature_prior_knows_men_and_women(prompt: str, sign: int) -> None:
    """Shoulders and neck move towards those of the gender that the prompt names."""
    from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
    from dreamportrait.mini.models import from_pretrained

    model = from_pretrained("mini/head")
    head = optimise(model, prompt, load_stable_diffusion("mini/diffusion"), shape=SHAPE, texture=None)
    moved = (model.shapedirs @ head.beta).flatten()
    for name in ("gender", "neck", "shoulders"):
        wanted = (model.shapedirs @ model.trait_dirs[model.shape_names.index(name)]).flatten()
        assert sign * float(moved @ wanted) > 0, name

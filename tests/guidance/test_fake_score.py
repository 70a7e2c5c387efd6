"""Tests of the fake score: it starts as the frozen model, learns the generator's latents, and keeps the text."""

import pytest
import torch
from diffusion_folders import write_own
from torch import Tensor

from dreamportrait.guidance.distillation import column, draw, noised
from dreamportrait.guidance.fake_score import NO_TEXT, Fakes, FakeScore, Lesson, contraction_ratio, draw_lesson
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion

PROMPTS = ["a man", "a woman with red hair", "a hat", ""]


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> StableDiffusion:
    return load_stable_diffusion(str(write_own(tmp_path_factory.mktemp("diffusion"))), offline=True)


def fakes(prior: StableDiffusion, count: int = 4) -> Fakes:
    numbers = torch.Generator().manual_seed(3)
    latents = 0.5 + 0.2 * torch.randn(count, *prior.latent_shape, generator=numbers)
    return Fakes(latents, prior.embed([PROMPTS[i % 4] for i in range(count)]))


def lesson(prior: StableDiffusion, count: int = 4, seed: int = 0) -> Lesson:
    torch.manual_seed(seed)
    return draw_lesson(prior, count)


@pytest.mark.parametrize("rank", [None, 4], ids=["copy", "LoRA"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_starts_as_the_frozen_model(prior, monkeypatch, rank, prediction):
    monkeypatch.setattr(prior, "prediction", prediction)
    fake, given, (t, noise, _) = FakeScore(prior, rank), fakes(prior), lesson(prior)
    own = fake.predict(given.latents, t, given.words)
    text, null = prior.predict_both(given.latents, t, given.words, fake.null_words)
    torch.testing.assert_close(own, text, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text, prior.predict(given.latents, t, given.words, fake.null_words, 1.0))
    torch.testing.assert_close(null, prior.predict(given.latents, t, given.words, fake.null_words, 0.0))
    found = fake.monitors(given, Lesson(t, noise, torch.zeros(4, dtype=torch.bool)))
    assert [float(value) for value in found.values()] == pytest.approx([1, 1], abs=1e-3)


@pytest.mark.parametrize("rank", [None, 4], ids=["copy", "LoRA"])
def test_it_learns_and_the_frozen_model_stays(prior, rank):
    """Its loss on the generator's latents falls below the frozen model's, which it does not change."""
    fake, given = FakeScore(prior, rank), fakes(prior)
    before = {name: value.clone() for name, value in prior.unet.state_dict().items()}
    first = fake.monitors(given, lesson(prior, seed=99))["fake_loss_ratio"]
    optimizer = torch.optim.Adam(fake.parameters(), lr=3e-3)
    for step in range(30):
        optimizer.zero_grad()
        fake.loss(given, lesson(prior, seed=step)).backward()
        optimizer.step()
    assert fake.monitors(given, lesson(prior, seed=99))["fake_loss_ratio"] < 0.99 * first
    assert all(torch.equal(value, before[name]) for name, value in prior.unet.state_dict().items())
    assert all(p.grad is None for p in prior.unet.parameters())


def test_what_is_saved(prior):
    """A copy saves a whole UNet, LoRA only its own small matrices; neither saves the frozen model."""
    whole, small = FakeScore(prior, None), FakeScore(prior, 4)
    assert len(whole.state_dict()) == len(prior.unet.state_dict()) + 1  # and whether it is warm
    layers = [name for name in small.state_dict() if name.endswith("down")]
    assert len(layers) == 4 * 2 * 4  # four layers in two attentions each of four transformer blocks
    assert all(p.dtype == torch.float32 for p in small.parameters())
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in whole.parameters()) / 4
    again = FakeScore(prior, 4)
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True))


def test_adapters_leave_no_hooks(prior):
    fake, given, (t, *_) = FakeScore(prior, 4), fakes(prior), lesson(prior)
    for adapter in fake.adapters.values():
        torch.nn.init.ones_(adapter.up)
    before = prior.predict(given.latents, t, given.words, fake.null_words, 1.0)
    assert not torch.allclose(fake.predict(given.latents, t, given.words), before)
    with pytest.raises(RuntimeError):
        fake.predict(given.latents[:, :1], t, given.words)
    assert torch.equal(prior.predict(given.latents, t, given.words, fake.null_words, 1.0), before)


def test_a_dropped_prompt_is_the_empty_prompt(prior):
    fake, given = FakeScore(prior, None), fakes(prior, 2)
    t, noise, _ = lesson(prior, 2)
    dropped = fake.loss(given, Lesson(t, noise, torch.tensor([True, True])))
    empty = Fakes(given.latents, prior.embed(["", ""]))
    torch.testing.assert_close(dropped, fake.loss(empty, Lesson(t, noise, torch.tensor([False, False]))))
    share = lesson(prior, 4000).silent.float().mean()
    assert abs(float(share) - NO_TEXT) < 0.02


def test_lessons_come_from_the_cpu_generator(prior):
    first, again, other = lesson(prior), lesson(prior), lesson(prior, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first.t, other.t)
    torch.manual_seed(0)
    t, noise = draw(prior, 4, 0, 1)
    assert torch.equal(first.t, t) and torch.equal(first.noise, noise)
    torch.manual_seed(0)
    some = fakes(prior).some(64)
    assert some.latents.shape == (64, *prior.latent_shape) and len(torch.unique(some.latents, dim=0)) == 4


def test_a_fake_score_without_text_is_noticed(prior, monkeypatch):
    fake, given = FakeScore(prior, None), fakes(prior)
    deaf = fake.predict(given.latents, lesson(prior).t, fake.null_words.expand_as(given.words))
    monkeypatch.setattr(fake, "predict", lambda *_: deaf)
    assert fake.monitors(given, lesson(prior))["text_sensitivity"] == 0


class Ideal:
    """The ideal denoiser of N(0, v) as a fake score, and that of N(m, v) as the frozen model."""

    def __init__(self, schedule: Tensor, mean: float, variance: float) -> None:
        self.alphas_cumprod, self.mean, self.variance = schedule, mean, variance
        self.prior, self.null_words = self, torch.zeros(1)

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, *rest: object) -> Tensor:
        a, m = column(self.alphas_cumprod[t]), self.mean if rest else 0.0
        return (1 - a).sqrt() * (noisy - a.sqrt() * m) / (a * self.variance + 1 - a)


def test_the_contraction_ratio_by_hand(prior):
    """E |eps_psi - eps|^2 is a v / (a v + 1 - a); the predictions differ by sqrt(a) sigma m / (a v + 1 - a)."""
    ideal, numbers = Ideal(prior.alphas_cumprod.double(), 0.7, 0.5), torch.manual_seed(0)
    latents = 0.5**0.5 * torch.randn(4000, 4, 2, 2, generator=numbers).double()
    t, noise = torch.full((4000,), 400), torch.randn(4000, 4, 2, 2).double()
    pull, gap, teacher = contraction_ratio(ideal, Fakes(latents, torch.zeros(4000)), t, noise)  # type: ignore[arg-type]
    a = float(ideal.alphas_cumprod[400])
    assert float(pull.mean()) == pytest.approx(a * 0.5 / (a * 0.5 + 1 - a), rel=0.03)
    expected = a * (1 - a) * 0.49 / (a * 0.5 + 1 - a) ** 2
    assert float(teacher.mean()) == pytest.approx(float(pull.mean()) + expected, rel=0.03)
    torch.testing.assert_close(gap, torch.full_like(gap, expected), rtol=1e-6, atol=0)
    noisy = noised(latents, noise, ideal.alphas_cumprod[t])
    denoised = (noisy - (1 - a) ** 0.5 * ideal.predict(noisy, t, noisy)) / a**0.5
    by_definition = (a / (1 - a) * (latents - denoised).square()).mean((1, 2, 3))
    torch.testing.assert_close(pull, by_definition, rtol=1e-6, atol=1e-9)

"""Tests of CSD, ASD and DMD with Gaussian data, whose ideal denoiser is known in closed form."""

import pytest
import torch
from torch import Tensor

from dreamportrait.guidance.differences import asd_gradient, csd_gradient, dmd_gradient, js_weights, later_steps
from dreamportrait.guidance.distillation import column, noised, sds_gradient
from dreamportrait.mini.diffusion.folder import make_scheduler

LATENT = (2, 3, 3)
SCHEDULE = make_scheduler().alphas_cumprod.double()


class Gaussian:
    """Latents from N(mean, deviation^2), independent elements, and the ideal denoiser for them."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation

    def draw(self, count: int) -> Tensor:
        return self.mean + self.deviation * torch.randn(count, *LATENT).double()

    def denoised(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Return E[x | x_t] = mean + sqrt(a) v / (a v + 1 - a) (x_t - sqrt(a) mean) with the variance v."""
        a, v = column(SCHEDULE[t]), self.deviation**2
        return self.mean + a.sqrt() * v / (a * v + 1 - a) * (noisy - a.sqrt() * self.mean)

    def noise(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Return E[eps | x_t] = (x_t - sqrt(a) E[x | x_t]) / sigma."""
        a = column(SCHEDULE[t])
        return (noisy - a.sqrt() * self.denoised(noisy, t)) / (1 - a).sqrt()


def draws(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(300, 980, (count,)), torch.randn(count, *LATENT).double()


TEXT, NULL, OWN = Gaussian(0.5, 0.6), Gaussian(0.0, 1.2), Gaussian(-0.4, 0.9)


def guided(noisy: Tensor, t: Tensor) -> Tensor:
    null = NULL.noise(noisy, t)
    return null + 3 * (TEXT.noise(noisy, t) - null)


# CSD.


def test_csd_is_the_scaled_difference_that_the_text_makes() -> None:
    """By hand for N(m, v) and N(0, v): the noises differ by -sqrt(a) sigma m / (a v + sigma^2), whatever x is."""
    text, null = Gaussian(0.7, 0.8), Gaussian(0.0, 0.8)
    (t, noise), latents = draws(6), OWN.draw(6)
    a = column(SCHEDULE[t])
    expected = 5 * (1 - a) * -(a.sqrt() * (1 - a).sqrt() * 0.7) / (a * 0.64 + 1 - a)
    found = csd_gradient(
        *(latents, t, noise, lambda noisy, t: (text.noise(noisy, t), null.noise(noisy, t)), SCHEDULE),
        scale=5.0,
        weighting="sigma_squared",
        rescale=0.0,
    )
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-9, atol=1e-12)


def test_csd_is_sds_without_its_noise() -> None:
    """SDS minus CSD is eps_0 - eps, and rescaled noises on a sphere differ by at most its diameter."""
    (t, noise), latents = draws(6), OWN.draw(6)

    def both(noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return TEXT.noise(noisy, t), NULL.noise(noisy, t)

    csd = csd_gradient(latents, t, noise, both, SCHEDULE, scale=3.0, weighting="uniform", rescale=0.0)
    sds = sds_gradient(latents, t, noise, guided, SCHEDULE, weighting="uniform", rescale=0.0)
    null = NULL.noise(noised(latents, noise, SCHEDULE[t]), t)
    torch.testing.assert_close(sds - csd, null - noise, rtol=1e-9, atol=1e-12)
    bound = csd_gradient(latents, t, noise, both, SCHEDULE, scale=1e4, weighting="uniform", rescale=1.0)
    assert bound.square().mean((1, 2, 3)).sqrt().max() <= 2


# ASD.


def test_asd_by_hand() -> None:
    """Each step has its own x_t from the same noise; the second prediction has the text but no guidance."""
    (t, noise), latents = draws(4), OWN.draw(4)
    later = t + torch.tensor([0, 5, 9, 19])
    found = asd_gradient(*(latents, t, later, noise, guided, TEXT.noise, SCHEDULE), weighting="sigma", rescale=0.0)
    for i in range(4):
        one, two = (int(each[i]) for each in (t, later))
        a, a2 = float(SCHEDULE[one]), float(SCHEDULE[two])
        x_t = a**0.5 * latents[i] + (1 - a) ** 0.5 * noise[i]
        x_t2 = a2**0.5 * latents[i] + (1 - a2) ** 0.5 * noise[i]
        eps_c, eps_0 = ((1 - a) ** 0.5 * (x_t - a**0.5 * m) / (a * v + 1 - a) for m, v in ((0.5, 0.36), (0, 1.44)))
        second = (1 - a2) ** 0.5 * (x_t2 - a2**0.5 * 0.5) / (a2 * 0.36 + 1 - a2)
        expected = (1 - a) ** 0.5 * (eps_0 + 3 * (eps_c - eps_0) - second)
        torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-12)


def test_asd_without_a_shift_and_guidance_is_nothing() -> None:
    (t, noise), latents = draws(4), OWN.draw(4)
    found = asd_gradient(*(latents, t, t, noise, TEXT.noise, TEXT.noise, SCHEDULE), weighting="uniform", rescale=0.0)
    assert not found.any()


def test_later_steps_by_hand() -> None:
    t, u = torch.tensor([300, 400, 400, 979]), torch.tensor([0.9, 0.55, 0.0, 1.0])
    assert later_steps(t, u, 300, 1000, 0.1).tolist() == [300, 405, 400, 999]  # 979 + 67 is beyond the last step
    assert later_steps(t, u, 300, 1000, 0.0).tolist() == t.tolist()
    with pytest.raises(ValueError, match=r"eta=1.5: must be within 0 .. 1"):
        later_steps(t, u, 300, 1000, 1.5)


# DMD.


def test_dmd_vanishes_when_the_generator_is_the_teacher() -> None:
    """The fake score is the ideal denoiser for 20 000 samples. SDS still pulls towards their mean, DMD does not."""
    torch.manual_seed(0)
    latents = TEXT.draw(20_000)
    (t, noise), psi = draws(len(latents)), Gaussian(float(latents.mean()), float(latents.std()))
    dmd = dmd_gradient(latents, t, noise, TEXT.noise, psi.noise, SCHEDULE)
    sds = sds_gradient(latents, t, noise, TEXT.noise, SCHEDULE, weighting="uniform", rescale=0.0)

    def pull(g: Tensor) -> float:
        """Return the mean of g (x - mean) / variance. Positive: descending g reduces the variance."""
        return float((g * (latents - TEXT.mean)).mean() / TEXT.deviation**2)

    assert abs(dmd.mean()) < 0.01 and abs(pull(dmd)) < 0.01
    assert pull(sds) > 0.2


def test_dmd_moves_towards_the_teacher() -> None:
    """The generator is wider than the teacher and lies to its left: both moments have to change."""
    torch.manual_seed(0)
    latents = OWN.draw(20_000)
    t, noise = draws(len(latents))
    g = dmd_gradient(latents, t, noise, TEXT.noise, OWN.noise, SCHEDULE)
    assert g.mean() < -0.1 and (g * (latents - OWN.mean)).mean() > 0.02


def test_sds_minus_dmd_is_the_pull_to_the_own_mean() -> None:
    """The difference is sqrt(a) / sigma (x - E_q[x | x_t])."""
    (t, noise), latents = draws(64), OWN.draw(64)
    a = column(SCHEDULE[t])
    noisy = noised(latents, noise, SCHEDULE[t])
    sds = sds_gradient(latents, t, noise, guided, SCHEDULE, weighting="uniform", rescale=0.0)
    norm = (guided(noisy, t) - noise).abs().mean((1, 2, 3), keepdim=True)
    dmd = norm * dmd_gradient(latents, t, noise, guided, OWN.noise, SCHEDULE)
    pull = a.sqrt() / (1 - a).sqrt() * (latents - OWN.denoised(noisy, t))
    torch.testing.assert_close(sds - dmd, pull, rtol=1e-9, atol=1e-12)


def test_the_normaliser_of_a_sample_is_its_own() -> None:
    (t, noise), latents = draws(4), OWN.draw(4)
    whole = dmd_gradient(latents, t, noise, guided, OWN.noise, SCHEDULE)
    alone = dmd_gradient(latents[1:2], t[1:2], noise[1:2], guided, OWN.noise, SCHEDULE)
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-12, atol=0)


# Jensen-Shannon.


def test_js_weights_by_hand() -> None:
    """sigmoid(0) = 1/2 and sigmoid(log 4) = 4/5; their mean is 0.65. Logits beyond 3 count as 3."""
    found = js_weights(torch.tensor([[1.0], [4.0]]).log())
    torch.testing.assert_close(found, torch.tensor([0.5, 0.8]) / 0.65)
    limit = js_weights(torch.tensor([[-50.0], [50.0]]))
    torch.testing.assert_close(limit, js_weights(torch.tensor([[-3.0], [3.0]])))
    torch.testing.assert_close(js_weights(torch.full((3, 1), 7.0)), torch.ones(3))

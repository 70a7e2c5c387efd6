"""Tests of score distillation against gradients derived by hand, for a linear auto-encoder and denoiser."""

import pytest
import torch
from torch import Tensor

from dreamportrait.guidance.distillation import d_sds_loss, draw, rescaled, sds_gradient, sjc_loss, weight
from dreamportrait.mini.diffusion.folder import make_scheduler

N, LATENT = 4, (2, 3, 3)
SCHEDULE = make_scheduler().alphas_cumprod.double()
WEIGHTS = {
    "uniform": lambda a: 1.0,
    "sigma": lambda a: (1 - a) ** 0.5,
    "sigma_squared": lambda a: 1 - a,
    "chained": lambda a: a**0.5 * (1 - a),
    "beta": lambda a: 1 - a / torch.cat([torch.ones(1).double(), SCHEDULE])[torch.searchsorted(-SCHEDULE, -a)],
}


class Linear:
    """A prior with x' = A x and eps_phi(x_t; y, t) = B x_t + t C y, in double precision; y is the first word."""

    latent_shape = LATENT
    alphas_cumprod = SCHEDULE

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.A, self.B = torch.randn(18, 48).double(), torch.randn(18, 18).double()
        self.C = torch.randn(18, 5).double() / 1000
        self.B.requires_grad_()
        self.C.requires_grad_()

    def encode(self, images: Tensor) -> Tensor:
        return (images.flatten(1) @ self.A.T).unflatten(1, LATENT)

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor:
        def run(words: Tensor) -> Tensor:
            return noisy.flatten(1) @ self.B.T + t[:, None] * (words[:, 0] @ self.C.T)

        null = run(null_words.expand_as(words))
        return (null + guidance_scale * (run(words) - null)).unflatten(1, LATENT)


class Knowing(Linear):
    """The ideal denoiser if only one picture exists: the noise is the rest after subtracting that picture."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = mean

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor:
        a = SCHEDULE[t][:, None, None, None]
        return (noisy - a.sqrt() * self.mean) / (1 - a).sqrt()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "images": torch.randn(N, 3, 4, 4).double().requires_grad_(),
        "words": torch.randn(N, 2, 5).double(),
        "null_words": torch.randn(1, 2, 5).double(),
        "t": torch.tensor([20, 400, 700, 979]),
        "noise": torch.randn(N, *LATENT).double(),
    }


def slope(loss: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return torch.autograd.grad(loss, batch["images"])[0]


def by_hand(prior: Linear, batch: dict[str, Tensor], i: int, scale: float, weighting: str, rescale: float) -> Tensor:
    """Return the gradient g of sample i with respect to its latents, written in the paper's symbols."""
    A, B, C = (matrix.detach() for matrix in (prior.A, prior.B, prior.C))
    t, eps = int(batch["t"][i]), batch["noise"][i].flatten()
    a = float(SCHEDULE[t])
    x_t = a**0.5 * (A @ batch["images"][i].detach().flatten()) + (1 - a) ** 0.5 * eps
    text, null = t * C @ batch["words"][i, 0], t * C @ batch["null_words"][0, 0]
    eps_hat = B @ x_t + null + scale * (text - null)
    left, right = (n * (1 - rescale + rescale / n.pow(2).mean() ** 0.5) for n in (eps_hat, eps))
    return WEIGHTS[weighting](a) * (left - right)


# D-SDS.


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize(("scale", "rescale"), [(1.0, 0.0), (7.5, 0.0), (7.5, 0.4), (30.0, 1.0)])
def test_the_gradient_is_the_one_derived_by_hand(batch, weighting, scale, rescale) -> None:
    """The gradient is A^T w(t) (eps_hat - eps) / N: it has the encoder's Jacobian A but not the denoiser's B."""
    prior = Linear()
    loss = d_sds_loss(prior, **batch, scale=scale, weighting=weighting, rescale=rescale)
    g = [by_hand(prior, batch, i, scale, weighting, rescale) for i in range(N)]
    expected = torch.stack([prior.A.T @ row / N for row in g]).unflatten(1, (3, 4, 4))
    torch.testing.assert_close(slope(loss, batch), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss, sum(0.5 * row.square().sum() for row in g) / N, rtol=1e-12, atol=0)


def test_no_gradient_reaches_the_denoiser(batch) -> None:
    prior = Linear()
    batch["words"].requires_grad_()
    for loss in (
        d_sds_loss(prior, **batch, scale=3.0, weighting="uniform", rescale=0.5),
        sjc_loss(prior, **batch, scale=3.0),
    ):
        loss.backward()
    assert prior.B.grad is None and prior.C.grad is None and batch["words"].grad is None
    assert batch["images"].grad.abs().min() > 0


def test_each_sample_has_its_own_step_noise_and_prompt(batch) -> None:
    """Changing the step, noise or prompt of one sample does not change the gradient of another."""

    def slopes(**changed: Tensor) -> Tensor:
        used = {**batch, **changed}
        return slope(d_sds_loss(Linear(), **used, scale=5.0, weighting="sigma", rescale=0.7), used)

    first = slopes()
    for name in ("t", "noise", "words"):
        other = batch[name].clone()
        other[2] = 100 if name == "t" else -other[2]
        changed = (slopes(**{name: other}) - first).abs().amax((1, 2, 3))
        assert changed[2] > 1e-3 and changed[[0, 1, 3]].max() < 1e-14, name


def test_the_order_of_the_batch_does_not_matter(batch) -> None:
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: value if name == "null_words" else value[order] for name, value in batch.items()}
    moved["images"] = moved["images"].detach().requires_grad_()
    for loss in (
        lambda used: d_sds_loss(Linear(), **used, scale=5.0, weighting="chained", rescale=0.3),
        lambda used: sjc_loss(Linear(), **used, scale=5.0),
    ):
        first, second = loss(batch), loss(moved)
        torch.testing.assert_close(second, first, rtol=1e-12, atol=0)
        torch.testing.assert_close(slope(second, moved), slope(first, batch)[order], rtol=1e-12, atol=1e-14)


def test_accumulated_parts_add_up_to_the_batch(batch) -> None:
    def loss(rows: slice) -> Tensor:
        used = {name: value if name == "null_words" else value[rows] for name, value in batch.items()}
        return d_sds_loss(Linear(), **used, scale=5.0, weighting="sigma_squared", rescale=1.0)

    parts = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
    torch.testing.assert_close(slope(parts, batch), slope(loss(slice(None)), batch), rtol=1e-12, atol=1e-14)


def test_pictures_go_where_the_denoiser_wants_them(batch) -> None:
    """If only one picture exists, a gradient step moves straight towards it for every draw of noise."""
    mean = torch.randn(LATENT).double()
    latents, t = torch.randn(N, *LATENT).double(), batch["t"]
    prior = Knowing(mean)

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return prior.predict(noisy, t, batch["words"], batch["null_words"], 1)

    g = sds_gradient(latents, t, batch["noise"], predict, SCHEDULE, weighting="sigma", rescale=0)
    torch.testing.assert_close(g, SCHEDULE[t].sqrt()[:, None, None, None] * (latents - mean), rtol=1e-9, atol=1e-9)


# Parts of the loss.


def test_rescaling_by_hand() -> None:
    noise = torch.tensor([3.0, 4.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).reshape(2, 1, 2, 2)  # rms 2.5 and 1
    expected = torch.tensor([1.2, 1.6, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(rescaled(noise, 1.0), expected)
    torch.testing.assert_close(rescaled(noise, 0.25), 0.75 * noise + 0.25 * expected)
    assert torch.equal(rescaled(noise, 0.0), noise)
    assert torch.equal(rescaled(torch.zeros_like(noise), 1.0), torch.zeros_like(noise))
    for amount in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"amount=.*: must be within 0 .. 1"):
            rescaled(noise, amount)


def test_rescaling_bounds_the_gradient_of_any_guidance(batch) -> None:
    def length(scale: float, rescale: float) -> Tensor:
        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            return Linear().predict(noisy, t, batch["words"], batch["null_words"], scale)

        latents = batch["noise"].flip(0)
        g = sds_gradient(latents, batch["t"], batch["noise"], predict, SCHEDULE, weighting="uniform", rescale=rescale)
        return g.square().mean((1, 2, 3)).sqrt()

    assert length(1e4, 0.0).max() > 1e3
    assert length(1e4, 1.0).max() <= 2


def test_weights_by_hand() -> None:
    alphas, t = torch.tensor([1.0, 0.75, 0.6, 0.0]), torch.tensor([0, 1, 3])
    for name, expected in {
        "uniform": [1, 1, 1],
        "sigma": [0, 0.5, 1],
        "sigma_squared": [0, 0.25, 1],
        "chained": [0, 0.25 * 0.75**0.5, 0],
        "beta": [0, 0.25, 1],
    }.items():
        torch.testing.assert_close(weight(alphas, t, name), torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(weight(alphas, torch.tensor([2]), "beta"), torch.tensor([0.2]))  # 1 - 0.6 / 0.75
    with pytest.raises(ValueError, match="weighting='w': must be 'uniform'"):
        weight(alphas, t, "w")  # type: ignore[arg-type]


def test_draws() -> None:
    torch.manual_seed(0)
    t, noise = draw(Linear(), 4000, 0.02, 0.98)
    assert (int(t.min()), int(t.max())) == (20, 979) and t.float().mean().sub(499.5).abs() < 15
    assert noise.shape == (4000, *LATENT) and abs(noise.std() - 1) < 0.01
    torch.manual_seed(0)
    again = draw(Linear(), 4000, 0.02, 0.98)
    assert torch.equal(again[0], t) and torch.equal(again[1], noise)
    every, _ = draw(Linear(), 20_000, 0, 1)
    assert (int(every.min()), int(every.max())) == (0, 999)
    for shares in ((0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.5, 0.5001)):
        with pytest.raises(ValueError, match="must be 0 <= t_min < t_max <= 1, with at least one of the 1000 steps"):
            draw(Linear(), 2, *shares)


# SJC.


def test_sjc_is_the_difference_of_states_over_sigma(batch) -> None:
    """The gradient is A^T (y - D(y + sigma n; sigma)) / sigma / N.

    The denoiser is D(z; sigma) = z - sigma eps(z / sqrt(1 + sigma^2)).
    """
    prior = Linear()
    A, B, C = (matrix.detach() for matrix in (prior.A, prior.B, prior.C))
    rows = []
    for i, t in enumerate(batch["t"].tolist()):
        sigma = float(1 / SCHEDULE[t] - 1) ** 0.5
        y = A @ batch["images"][i].detach().flatten()
        z = y + sigma * batch["noise"][i].flatten()
        text, null = t * C @ batch["words"][i, 0], t * C @ batch["null_words"][0, 0]
        D = z - sigma * (B @ z / (1 + sigma**2) ** 0.5 + null + 4 * (text - null))
        rows.append(A.T @ (y - D) / sigma / N)
    loss = sjc_loss(prior, **batch, scale=4.0)
    torch.testing.assert_close(slope(loss, batch), torch.stack(rows).unflatten(1, (3, 4, 4)), rtol=1e-9, atol=1e-12)


def test_sjc_of_one_picture_in_the_world(batch) -> None:
    prior = Knowing(torch.randn(LATENT).double())
    sigma = (1 / SCHEDULE[batch["t"]] - 1).sqrt()[:, None, None, None]
    g = (prior.encode(batch["images"].detach()) - prior.mean) / sigma  # D returns that picture
    loss = sjc_loss(prior, **batch, scale=1.0)
    torch.testing.assert_close(loss, g.square().sum() / 2 / N, rtol=1e-9, atol=0)


def test_sjc_is_unweighted_d_sds(batch) -> None:
    sjc = slope(sjc_loss(Linear(), **batch, scale=9.0), batch)
    sds = slope(d_sds_loss(Linear(), **batch, scale=9.0, weighting="uniform", rescale=0.0), batch)
    torch.testing.assert_close(sjc, sds, rtol=1e-9, atol=1e-10)

"""Score distillation: how a frozen diffusion model pulls pictures towards their prompts.

    here          paper    meaning
    images        x        rendered: g(theta, z, y, camera), each with its own z, y, camera, t, noise
    latents       x'       of the auto-encoder; its Jacobian dx'/dx is kept (eq. 5)
    t             t        step of the noise schedule
    signal        a_t      alpha-bar, the share of signal in the variance at step t: 1 -> 0
    noise         eps      Gaussian
    noisy         x_t      sqrt(a_t) x' + sqrt(1 - a_t) eps
    predicted     eps_phi  of the UNet, guided: null + scale * (text - null); a scale of 1 is no guidance
    weight        w(t)     with the constant dx_t/dx' = sqrt(a_t) of eq. 4 taken in, as DreamFusion does

The UNet's Jacobian is left out (eq. 4), so a loss is only a carrier of a gradient that is known beforehand. Every
loss here has the slope g_i / N at latents i of a batch of N, where g_i is that gradient, and the value 1/2 |g|^2,
summed over the numbers of a latent and averaged over the batch: neither depends on what else is in the batch.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

Weighting = Literal["uniform", "sigma", "sigma_squared", "chained"]
_TINY = 1e-12


class Prior(Protocol):
    """What the losses need of a diffusion model; dreamportrait.guidance.stable_diffusion has one."""

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    @property
    def alphas_cumprod(self) -> Tensor: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor: ...


# Draws.


def draw(prior: Prior, count: int, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:  # [N], [N, c, h, w]
    """A step and noise for each sample; t_min, t_max: the first step and the end, as shares of the schedule.

    From torch's generator of the CPU, so that they are the same on every device.
    """
    steps = len(prior.alphas_cumprod)
    first, end = round(t_min * steps), round(t_max * steps)
    if not 0 <= first < end <= steps:
        rule = f"must be 0 <= t_min < t_max <= 1, with at least one of the {steps} steps between them"
        raise ValueError(f"t_min={t_min}, t_max={t_max}: {rule}")
    t, noise = torch.randint(first, end, (count,)), torch.randn(count, *prior.latent_shape)
    device = prior.alphas_cumprod.device
    return t.to(device), noise.to(device)


# The paper's D-SDS.


def weight(signal: Tensor, weighting: Weighting) -> Tensor:  # [N] -> [N]
    """w(t), which the paper does not state. sigma^2 = 1 - a_t is DreamFusion's; "chained" is the same with the factor
    sqrt(a_t) of eq. 4 written out, not taken in."""
    if weighting == "uniform":
        return torch.ones_like(signal)
    if weighting == "sigma":
        return (1 - signal).sqrt()
    if weighting == "sigma_squared":
        return 1 - signal
    if weighting == "chained":
        return signal.sqrt() * (1 - signal)
    raise ValueError(f"weighting={weighting!r}: must be 'uniform', 'sigma', 'sigma_squared' or 'chained'")


def rescaled(noise: Tensor, amount: float) -> Tensor:  # [N, c, h, w] -> [N, c, h, w]
    """Appendix A, "we rescale the predicted noise and Gaussian noise"; the paper gives no formula. This one:

        eps <- (1 - amount) * eps + amount * eps / rms(eps)

    with the root mean square over the numbers of a sample. At 1 both noises lie on the sphere of what Gaussian noise
    is on average, and however strong the guidance, no gradient is longer than twice its radius. At 0 nothing changes.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount={amount}: must be within 0 .. 1, from none to all")
    rms = noise.square().mean((1, 2, 3), keepdim=True).sqrt()  # [N, 1, 1, 1]
    return torch.lerp(noise, noise / rms.clamp_min(_TINY), amount)


# Eq. 4, up to the latents: w(t) (eps_phi - eps).
@torch.no_grad()
def sds_gradient(
    latents: Tensor,  # [N, c, h, w]
    t: Tensor,  # [N]
    noise: Tensor,  # [N, c, h, w]
    predict: Callable[[Tensor, Tensor], Tensor],  # noisy [N, c, h, w], t [N] -> noise [N, c, h, w]
    alphas_cumprod: Tensor,  # [T]
    *,
    weighting: Weighting,
    rescale: float,
) -> Tensor:  # [N, c, h, w]
    signal = alphas_cumprod[t]  # [N]
    a = _column(signal)
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    predicted = predict(noisy, t)
    return _column(weight(signal, weighting)) * (rescaled(predicted, rescale) - rescaled(noise, rescale))


# Eq. 2 with eq. 5: one batch's estimate of the expectation over z, y, t, eps.
def d_sds_loss(
    prior: Prior,
    images: Tensor,  # [N, 3, H, W] in -1 .. 1
    words: Tensor,  # [N, L, C], of the prompts
    null_words: Tensor,  # [1, L, C], of the empty prompt
    t: Tensor,  # [N]; with noise from draw()
    noise: Tensor,  # [N, c, h, w]
    *,
    scale: float,
    weighting: Weighting,
    rescale: float,
) -> Tensor:  # []
    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return prior.predict(noisy, t, words, null_words, scale)

    latents = prior.encode(images)
    g = sds_gradient(latents, t, noise, predict, prior.alphas_cumprod, weighting=weighting, rescale=rescale)
    return _carrying(latents, g)


# Score Jacobian Chaining, Wang et al. 2022.


def sjc_loss(
    prior: Prior,
    images: Tensor,
    words: Tensor,
    null_words: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    scale: float,
) -> Tensor:  # []
    """Perturb-and-average scoring: the score at a clean latent y is that of y + sigma n, averaged over n:

        (D(y + sigma n; sigma) - y) / sigma^2,  times sigma, as its authors' code weighs it

    The denoiser D has noise of growing variance, sigma^2 = (1 - a_t) / a_t; the UNet sees y + sigma n divided by
    sqrt(1 + sigma^2). In exact arithmetic that is D-SDS with uniform weight and no rescaling.

    As published: differences to y, not to y + sigma n (less variance); sigma uniform over the steps 10 to 969, so
    t_min 0.01 and t_max 0.97; the same meaning of scale, there 100. Other than published: here y comes from an image
    by way of the encoder, there latents are rendered; and their emptiness and depth losses are for voxel grids.
    """
    latents = prior.encode(images)
    with torch.no_grad():
        a = _column(prior.alphas_cumprod[t])
        sigma = ((1 - a) / a).sqrt()  # [N, 1, 1, 1]
        perturbed = latents + sigma * noise
        predicted = prior.predict(perturbed / (1 + sigma.square()).sqrt(), t, words, null_words, scale)
        denoised = perturbed - sigma * predicted
        g = (latents - denoised) / sigma
    return _carrying(latents, g)


def _carrying(latents: Tensor, g: Tensor) -> Tensor:
    """A loss whose slope at the latents is g / N, exactly, and whose value is 1/2 |g|^2 / N."""
    carrier = (latents * g).sum() / len(g)
    return carrier - carrier.detach() + g.square().sum() / (2 * len(g))


def _column(x: Tensor) -> Tensor:  # [N] -> [N, 1, 1, 1]
    return x[:, None, None, None]

"""Score distillation: losses that move pictures towards their prompts with a frozen diffusion model.

    here          paper    meaning
    images        x        rendered: g(theta, z, y, camera), each with its own z, y, camera, t, noise
    latents       x'       latents of the auto-encoder; its Jacobian dx'/dx is kept (eq. 5)
    t             t        step of the noise schedule
    signal        a_t      alpha-bar, the share of signal in the variance at step t; falls from 1 to 0
    noise         eps      Gaussian noise
    noisy         x_t      sqrt(a_t) x' + sqrt(1 - a_t) eps
    predicted     eps_phi  guided prediction of the UNet: null + scale * (text - null); a scale of 1 is no guidance
    weight        w(t)     includes the constant dx_t/dx' = sqrt(a_t) of eq. 4, as in DreamFusion

The UNet's Jacobian is left out (eq. 4), so a loss only carries a gradient that is computed beforehand. Every loss here
has the gradient g_i / N at latents i of a batch of N, where g_i is the gradient computed for sample i. Its value is
1/2 |g|^2, summed over the elements of a latent and averaged over the batch. The contribution of a sample does not
depend on the other samples of the batch. The gradients that replace the Gaussian noise by another prediction are in
differences.py.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

Weighting = Literal["uniform", "sigma", "sigma_squared", "chained", "beta"]
_TINY = 1e-12


class Prior(Protocol):
    """Interface of a diffusion model for the losses; dreamportrait.guidance.stable_diffusion implements it."""

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    @property
    def alphas_cumprod(self) -> Tensor: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor: ...


# Drawing steps and noise.


def draw(prior: Prior, count: int, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:  # [N], [N, c, h, w]
    """Draw a step and noise for each sample.

    t_min, t_max: the first step and the end, which is excluded, as shares of the schedule.
    Both are drawn with torch's CPU generator, so that they are the same on every device.
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


def weight(alphas_cumprod: Tensor, t: Tensor, weighting: Weighting) -> Tensor:  # [T], [N] -> [N]
    """Return w(t), which the paper does not state.

    sigma^2 = 1 - a_t is the weight of DreamFusion. "chained" is this weight times the factor sqrt(a_t) of eq. 4. "beta"
    is the variance that step t adds, 1 - a_t / a_(t-1): the literal reading of programs that write 1 - alphas[t].
    """
    signal = alphas_cumprod[t]
    if weighting == "uniform":
        return torch.ones_like(signal)
    if weighting == "sigma":
        return (1 - signal).sqrt()
    if weighting == "sigma_squared":
        return 1 - signal
    if weighting == "chained":
        return signal.sqrt() * (1 - signal)
    if weighting == "beta":
        before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])[t]
        return 1 - signal / before
    raise ValueError(f"weighting={weighting!r}: must be 'uniform', 'sigma', 'sigma_squared', 'chained' or 'beta'")


def rescaled(noise: Tensor, amount: float) -> Tensor:  # [N, c, h, w] -> [N, c, h, w]
    """Return rescaled noise. Appendix A: "we rescale the predicted noise and Gaussian noise".

    The paper gives no formula. This function computes

        eps <- (1 - amount) * eps + amount * eps / rms(eps)

    with the root mean square over the elements of a sample. With amount = 1, both noises lie on the sphere whose radius
    is the average length of Gaussian noise, so that no gradient is longer than twice this radius, however strong the
    guidance. With amount = 0, nothing changes.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount={amount}: must be within 0 .. 1, from none to all")
    rms = noise.square().mean((1, 2, 3), keepdim=True).sqrt()  # [N, 1, 1, 1]
    return torch.lerp(noise, noise / rms.clamp_min(_TINY), amount)


def noised(latents: Tensor, noise: Tensor, signal: Tensor) -> Tensor:  # [N, c, h, w] x 2, [N] -> [N, c, h, w]
    """Return the noisy latents x_t."""
    a = column(signal)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


# Eq. 4 without dx'/dx, that is the gradient at the latents: w(t) (eps_phi - eps).
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
    predicted = predict(noised(latents, noise, signal), t)
    return column(weight(alphas_cumprod, t, weighting)) * (rescaled(predicted, rescale) - rescaled(noise, rescale))


# Eq. 2 with eq. 5: estimate of the expectation over z, y, t, eps from one batch.
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
    return carrying(latents, g)


# Score Jacobian Chaining, Wang et al. 2022.


@torch.no_grad()
def sjc_gradient(
    latents: Tensor,  # [N, c, h, w]
    t: Tensor,  # [N]
    noise: Tensor,  # [N, c, h, w]
    predict: Callable[[Tensor, Tensor], Tensor],
    alphas_cumprod: Tensor,  # [T]
) -> Tensor:  # [N, c, h, w]
    """Return the gradient of perturb-and-average scoring.

    The score at a clean latent y is the score at y + sigma n, averaged over n:

        (D(y + sigma n; sigma) - y) / sigma^2,  times sigma, as its authors' code weighs it

    The noise of the denoiser D has a growing variance, sigma^2 = (1 - a_t) / a_t; the UNet gets y + sigma n divided by
    sqrt(1 + sigma^2). In exact arithmetic, this equals D-SDS with uniform weight and no rescaling.

    As published: the difference is to y, not to y + sigma n (less variance). The step of sigma is uniform in 10 to 969,
    that is t_min 0.01 and t_max 0.97. The scale has the same meaning; the published value is 100. Unlike published: y
    is the encoding of an image, while the authors render latents. Their emptiness and depth losses are left out,
    because they are for voxel grids.
    """
    a = column(alphas_cumprod[t])
    sigma = ((1 - a) / a).sqrt()  # [N, 1, 1, 1]
    perturbed = latents + sigma * noise
    denoised = perturbed - sigma * predict(perturbed / (1 + sigma.square()).sqrt(), t)
    return (latents - denoised) / sigma


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
    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return prior.predict(noisy, t, words, null_words, scale)

    latents = prior.encode(images)
    return carrying(latents, sjc_gradient(latents, t, noise, predict, prior.alphas_cumprod))


# From a gradient to a loss.


def carrying(latents: Tensor, g: Tensor) -> Tensor:
    """Return a loss whose gradient at the latents is exactly g / N and whose value is 1/2 |g|^2 / N."""
    carrier = (latents * g).sum() / len(g)
    return carrier - carrier.detach() + g.square().sum() / (2 * len(g))


def column(x: Tensor) -> Tensor:  # [N] -> [N, 1, 1, 1]
    return x[:, None, None, None]

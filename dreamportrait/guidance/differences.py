"""Gradients of score distillation without the sampled noise: CSD, ASD, and distribution matching (DMD).

The notation is that of distillation.py, with

    here      meaning
    text      eps_c    prediction of the frozen model with the prompt
    null      eps_0    its prediction without text
    guided    eps_s    null + scale * (text - null)
    fake      eps_psi  prediction of the fake score: a denoiser of the generator's own latents, see fake_score.py
    sigma_t            sqrt(1 - a_t)

The four gradients at latents x', with q for the distribution of the generator's latents:

    SDS   w (eps_s - eps)                  = w [(eps_c - eps)     + (scale - 1) (eps_c - eps_0)]
    CSD   w (eps_s - eps_0)                = w scale (eps_c - eps_0)
    ASD   w (eps_s(x_t) - eps_c(x_t2))     t2 a little later than t, with the same noise
    DMD   (eps_s - eps_psi) / norm         = [(eps_c - eps_psi) + (scale - 1) (eps_c - eps_0)] / norm

SDS minus DMD, both without weight and norm, is eps_psi - eps = sqrt(a_t) / sigma_t (x' - E_q[x' | x_t]). Descending it
moves each latent to the mean of the generator's latents that look like it under noise, which reduces their variety.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamportrait.guidance.distillation import Weighting, column, noised, rescaled, weight

Predict = Callable[[Tensor, Tensor], Tensor]  # noisy [N, c, h, w], t [N] -> noise [N, c, h, w]
LOGIT_LIMIT = 3.0  # of the Jensen-Shannon weight
_EPSILON = 1e-12


# Classifier score distillation, Yu et al. 2023: w (eps_s - eps_0).
@torch.no_grad()
def csd_gradient(
    latents: Tensor,  # [N, c, h, w]
    t: Tensor,  # [N]
    noise: Tensor,  # [N, c, h, w]
    predict_both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],  # noisy, t -> text, null
    alphas_cumprod: Tensor,  # [T]
    *,
    scale: float,
    weighting: Weighting,
    rescale: float,
) -> Tensor:  # [N, c, h, w]
    signal = alphas_cumprod[t]  # [N]
    text, null = predict_both(noised(latents, noise, signal), t)
    guided = null + scale * (text - null)
    return column(weight(alphas_cumprod, t, weighting)) * (rescaled(guided, rescale) - rescaled(null, rescale))


# Asynchronous score distillation, Ma et al. 2024: w(t) (eps_s(x_t) - eps_c(x_t2)).
@torch.no_grad()
def asd_gradient(
    latents: Tensor,  # [N, c, h, w]
    t: Tensor,  # [N]
    later: Tensor,  # [N], t2 from later_steps()
    noise: Tensor,  # [N, c, h, w], for both steps
    predict: Predict,  # guided
    predict_text: Predict,  # with the prompt, without guidance
    alphas_cumprod: Tensor,  # [T]
    *,
    weighting: Weighting,
    rescale: float,
) -> Tensor:  # [N, c, h, w]
    signal = alphas_cumprod[t]  # [N]
    guided = predict(noised(latents, noise, signal), t)
    text = predict_text(noised(latents, noise, alphas_cumprod[later]), later)
    return column(weight(alphas_cumprod, t, weighting)) * (rescaled(guided, rescale) - rescaled(text, rescale))


def later_steps(t: Tensor, draws: Tensor, first: int, count: int, eta: float) -> Tensor:  # [N], [N] -> [N]
    """Return t2 = t + floor(u eta (t - first)), at most the last of `count` steps.

    draws: u, uniform in 0 .. 1, one for each sample. A fixed shift aligned worse in the authors' tests.
    first: the first step that t is drawn from.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: must be within 0 .. 1, the largest shift as a share of t")
    return (t + (draws * eta * (t - first)).floor().long()).clamp_max(count - 1)


# Distribution matching, Yin et al. 2024 (DMD, DMD2): (eps_s - eps_psi) / mean |eps_s - eps|.
@torch.no_grad()
def dmd_gradient(
    latents: Tensor,  # [N, c, h, w]
    t: Tensor,  # [N]
    noise: Tensor,  # [N, c, h, w]
    predict: Predict,  # guided
    predict_fake: Predict,
    alphas_cumprod: Tensor,  # [T]
) -> Tensor:  # [N, c, h, w]
    """Return the gradient of KL(q_t | p_t) with classifier-free guidance, normalised for each sample.

    The published normaliser is the mean absolute difference of x' and the frozen model's denoised x'. The gradient is a
    difference of denoised latents. Both have the factor sigma_t / sqrt(a_t) in front of noise, which cancels.
    """
    noisy = noised(latents, noise, alphas_cumprod[t])
    guided, fake = predict(noisy, t), predict_fake(noisy, t)
    norm = (guided - noise).abs().mean((1, 2, 3), keepdim=True)  # [N, 1, 1, 1]
    return (guided - fake) / norm.clamp_min(_EPSILON)


# f-divergence distillation, Xu et al. 2025: h(r) = f''(r) r^2 = r / (1 + r) for Jensen-Shannon, with r = exp(logit).
@torch.no_grad()
def js_weights(logits: Tensor) -> Tensor:  # [N, 1] -> [N]
    """Return the factors that turn a gradient of the reverse KL divergence into one of Jensen-Shannon.

    They are divided by their mean over the batch, so the length of the gradient hardly changes. Samples that the
    discriminator finds real count more. A badly calibrated discriminator has large logits, which are therefore clamped.
    """
    h = logits.flatten().clamp(-LOGIT_LIMIT, LOGIT_LIMIT).sigmoid()  # [N]
    return h / h.mean()

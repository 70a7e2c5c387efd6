"""The adversarial losses of EG3D, as plain functions; what changes during training is in schedules.py.

The discriminator always sees the camera a picture was rendered from, the generator's mapping sometimes a neighbour's.
Both look at images through the same fading blur. A step of each, as the official code takes it:

    planes = G.synthesize_planes(G.map(z, swapped(camera, p, torch.rand(len(z), 1))), noise="random")
    fake = G.render(planes, camera, w=w, draws="random")
    generator_loss(D(blur(fake.image, sigma), fake.image_raw, camera))

    seen, seen_raw = blur(real, sigma), blur(antialiased(real, raw_size), sigma)
    discriminator_loss(D(seen, seen_raw, camera), D(blur(fake.image, sigma), fake.image_raw, camera))
    gamma / 2 * r1_penalty(D, seen, seen_raw, camera).mean()
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from eg3d_ops import filter2d
from eg3d_ops._checks import check_number, check_shape, check_tensor

# Of the published FFHQ training; each regulariser's loss is multiplied by its interval, as it comes that much rarer.
DENSITY_WEIGHT, DENSITY_EVERY = 0.25, 4
R1_GAMMA, R1_EVERY = 1.0, 16

Discriminator = Callable[[Tensor, Tensor, Tensor], Tensor]  # image, raw image, camera -> logits [N, 1]


# What the discriminator is shown.


def blur(images: Tensor, sigma: float) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
    """Separable, zeros outside. A tap at distance k weighs 2^-(k / sigma)^2: base 2, so wider than a Gaussian's e."""
    check_tensor("images", images, 4, "[N, C, H, W]")
    if check_number("sigma", sigma) < 0:
        raise ValueError(f"sigma={sigma}: a blur's width in pixels cannot be negative; 0 leaves images as they are")
    radius = math.floor(3 * sigma)
    if radius == 0:
        return images
    taps = torch.arange(-radius, radius + 1, device=images.device).div(sigma).square().neg().exp2()
    return filter2d(images, taps / taps.sum())


def swapped(camera: Tensor, probability: float | None, draws: Tensor, other: Tensor | None = None) -> Tensor:
    """The labels that condition the identity: each another one where its draw is below `probability`.

    camera [N, 25], draws [N, 1] from 0 .. 1, or [] for one decision for all (the density regulariser's way).
    None = trained without conditioning: zeros. other [N, 25]: the labels to take. None = the neighbour's.
    """
    if probability is None:
        return torch.zeros_like(camera)
    if not 0 <= check_number("probability", probability) <= 1:
        raise ValueError(f"probability={probability}: must be within 0 .. 1, or None for no conditioning")
    if draws.ndim:
        check_shape("draws", draws, [len(camera), 1], "[N, 1] as camera, or []")
    return torch.where(draws < probability, camera.roll(1, 0) if other is None else other, camera)


# Losses.


def generator_loss(fake: Tensor) -> Tensor:
    """Logits [N, 1] of generated pictures -> mean of softplus(-D)."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logits [N, 1] of both kinds -> mean of softplus(-D(real)) + mean of softplus(D(fake))."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def mismatch_loss(mismatched: Tensor) -> Tensor:
    """Logits [N, 1] of real pictures with others' prompts -> half the mean of softplus(D).

    Reed et al. 2016 (GAN-CLS): what does not belong together is refused, however real, and counts half beside fakes.
    """
    return F.softplus(mismatched).mean() / 2


def r1_penalty(discriminator: Discriminator, image: Tensor, raw: Tensor, camera: Tensor) -> Tensor:  # [N]
    """Squared slope of the logit at real pictures, over both images; the loss is gamma / 2 times its mean.

    Give the pictures as the discriminator sees them: officially the slope is taken after the blur, not before.
    """
    image, raw = image.detach().requires_grad_(), raw.detach().requires_grad_()
    logits = discriminator(image, raw, camera)
    slopes = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    return sum((slope.square().sum((1, 2, 3)) for slope in slopes), logits.new_zeros(len(image)))


def density_points(
    batch: int, count: int = 1000, distance: float = 0.004, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:  # [N, count, 3] each
    """Random points of [-1, 1]^3, whatever the box's size, and for each a neighbour about `distance` away."""
    points = torch.rand(batch, count, 3, device=device) * 2 - 1
    return points, points + torch.randn_like(points) * distance


def density_regularization(generator: TriPlaneGenerator, planes: Tensor, points: Tensor, neighbours: Tensor) -> Tensor:
    """Mean difference of the density (before its activation) between neighbours; DENSITY_WEIGHT belongs before it."""
    both = torch.cat([points, neighbours], 1)  # [N, 2 M, 3]
    density, _ = generator.sample_density_and_color(both, planes)
    here, there = density.chunk(2, 1)
    return F.l1_loss(here, there)

"""The adversarial losses of EG3D, as plain functions. Values that change during training are in schedule.py.

The discriminator is always given the camera that a picture was rendered from. The generator's mapping is sometimes
given the camera of a neighbour in the batch. Both losses apply the same fading blur to the images. One step of the
generator and one of the discriminator, as in the official code:

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

# Values of the published FFHQ training. A regulariser that is computed every k steps has its loss multiplied by k.
DENSITY_WEIGHT, DENSITY_EVERY = 0.25, 4
R1_GAMMA, R1_EVERY = 1.0, 16

Discriminator = Callable[[Tensor, Tensor, Tensor], Tensor]  # image, raw image, camera -> logits [N, 1]


# Inputs of the networks.


def blur(images: Tensor, sigma: float) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
    """Blur images with a separable filter. Pixels outside the image count as zero.

    The tap at distance k has the weight 2^-(k / sigma)^2. The base is 2, so the blur is wider than with base e.
    """
    check_tensor("images", images, 4, "[N, C, H, W]")
    if check_number("sigma", sigma) < 0:
        raise ValueError(f"sigma={sigma}: a blur's width in pixels cannot be negative; 0 leaves images as they are")
    radius = math.floor(3 * sigma)
    if radius == 0:
        return images
    taps = torch.arange(-radius, radius + 1, device=images.device).div(sigma).square().neg().exp2()
    return filter2d(images, taps / taps.sum())


def swapped(camera: Tensor, probability: float | None, draws: Tensor, other: Tensor | None = None) -> Tensor:
    """Return the cameras that condition the identity. A camera is replaced where its draw is below `probability`.

    camera: [N, 25].
    probability: None = trained without conditioning; the result is zeros.
    draws: [N, 1] from 0 .. 1, or [] for one decision for the whole batch (as in the official density regularisation).
    other: [N, 25], the replacements. None = the cameras of the neighbours in the batch.
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
    """Return the mean of softplus(-D) over the logits [N, 1] of generated pictures."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of softplus(-D(real)) plus the mean of softplus(D(fake)), from logits [N, 1] of both."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def mismatch_loss(mismatched: Tensor) -> Tensor:
    """Return half the mean of softplus(D) over the logits [N, 1] of real pictures with prompts of other pictures.

    As in Reed et al. 2016 (GAN-CLS), a picture that does not match its prompt counts as fake even if it is real, with
    half the weight of a generated picture.
    """
    return F.softplus(mismatched).mean() / 2


def r1_penalty(discriminator: Discriminator, image: Tensor, raw: Tensor, camera: Tensor) -> Tensor:  # [N]
    """Return the squared gradient of the logit at real pictures, summed over both images.

    The loss is gamma / 2 times its mean. Pass the pictures as the discriminator sees them: the official code takes the
    gradient with respect to the blurred pictures, not those before the blur.
    """
    image, raw = image.detach().requires_grad_(), raw.detach().requires_grad_()
    logits = discriminator(image, raw, camera)
    slopes = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    return sum((slope.square().sum((1, 2, 3)) for slope in slopes), logits.new_zeros(len(image)))


def density_points(
    batch: int, count: int = 1000, distance: float = 0.004, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:  # [N, count, 3] each
    """Draw random points of [-1, 1]^3, for any size of the box, and for each a neighbour about `distance` away."""
    points = torch.rand(batch, count, 3, device=device) * 2 - 1
    return points, points + torch.randn_like(points) * distance


def density_regularization(generator: TriPlaneGenerator, planes: Tensor, points: Tensor, neighbours: Tensor) -> Tensor:
    """Return the mean absolute difference of the density between neighbours, before the density's activation.

    The result is not yet multiplied by DENSITY_WEIGHT.
    """
    both = torch.cat([points, neighbours], 1)  # [N, 2 M, 3]
    density, _ = generator.sample_density_and_color(both, planes)
    here, there = density.chunk(2, 1)
    return F.l1_loss(here, there)

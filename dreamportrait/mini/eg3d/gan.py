"""Stage 3: adversarial training. It sharpens details that regression blurred, and trains the discriminator.

The gradients of an untrained discriminator destroy a trained generator within a minute, so the discriminator is trained
alone first. Every few generator steps also take the regression loss of stage 1, to keep what the generator has learnt.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.geometry.images import antialiased
from dreamportrait.mini.eg3d.warm import Batch, Student, regression_losses
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import Stateful, fit, set_lr
from dreamportrait.training.losses import (
    DENSITY_EVERY,
    DENSITY_WEIGHT,
    R1_EVERY,
    density_points,
    density_regularization,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    swapped,
)
from dreamportrait.training.schedule import AdamSettings, Ema, ema_beta, lazy

SWAP = 0.5  # probability that another sample's camera conditions the identity


@dataclass(frozen=True)
class GanPlan:
    """Settings of the adversarial training."""

    alone: int  # steps of the discriminator before the generator is trained
    steps: int  # total
    batch: int = 8
    # The rate is low because after regression the Frechet distance to real pictures is as small as between two sets of
    # real pictures, and training only increases it: in 400 steps from 0.0063 to 0.0071 at 3e-6 and from 0.0073 to
    # 0.0085 at 1e-5, in 600 steps to 0.010 at 3e-5.
    generator_lr: float = 3e-6
    discriminator_lr: float = 1e-3
    gamma: float = 2.0
    anchor_every: int = 2  # interval of the steps that add the regression loss
    ema_images: float = 5000.0


def train(
    work: Path, world: World, student: Student, discriminator: DualDiscriminator, plan: GanPlan
) -> TriPlaneGenerator:
    """Train both networks in place and return the running average of the generator."""
    G, D = student.generator, discriminator
    G.dataset_label_std.copy_(torch.from_numpy(world.cameras.std(0)))
    average = Ema(G)
    adam_g = lazy(AdamSettings(plan.generator_lr, (0.0, 0.99)), DENSITY_EVERY)
    adam_d = lazy(AdamSettings(plan.discriminator_lr, (0.0, 0.99)), R1_EVERY)
    # The attribute mapper is not trained any more; the mapping network has replaced it.
    optimizer_g = torch.optim.Adam(G.parameters(), adam_g.lr, adam_g.betas, adam_g.eps)
    optimizer_d = torch.optim.Adam(D.parameters(), adam_d.lr, adam_d.betas, adam_d.eps)
    size, device = G.config.render_resolution, G.dataset_label_std.device

    def step(index: int) -> dict[str, Tensor]:
        real = Batch(world, torch.randint(len(world), (plan.batch,)), device)
        raw = antialiased(real.image, size)
        camera = Batch(world, torch.randint(len(world), (plan.batch,)), device).camera
        losses = {}
        moving = index >= plan.alone
        set_lr(optimizer_g, adam_g.lr * min(1, (index - plan.alone + 1) / 200))
        with torch.set_grad_enabled(moving):
            planes, fake = _generate(G, camera)
        if moving:
            D.requires_grad_(False)
            losses["generator"] = generator_loss(D(fake.image, fake.image_raw, camera))
            total = losses["generator"]
            if index % DENSITY_EVERY == 0:
                smooth = density_regularization(G, planes, *density_points(plan.batch, device=device))
                total = total + DENSITY_EVERY * DENSITY_WEIGHT * smooth
            if index % plan.anchor_every == 0:
                known = regression_losses(student(real.vector, real.camera), real)
                losses["anchor"] = known["image"] + 0.5 * known["raw"] + known["depth"]
                total = total + plan.anchor_every * losses["anchor"]
            _update(optimizer_g, total)
            D.requires_grad_(True)

        logits = D(real.image, raw, real.camera), D(fake.image.detach(), fake.image_raw.detach(), camera)
        losses |= {"discriminator": discriminator_loss(*logits), "gap": logits[0].mean() - logits[1].mean()}
        total = losses["discriminator"]
        if index % R1_EVERY == 0:
            losses["r1"] = r1_penalty(D, real.image, raw, real.camera).mean()
            total = total + R1_EVERY * plan.gamma / 2 * losses["r1"]
        _update(optimizer_d, total)
        average.update(G, ema_beta((index - plan.alone) * plan.batch if moving else 0, plan.batch, plan.ema_images))
        return losses

    state: dict[str, Stateful] = {
        "student": student,
        "D": D,
        "average": average,
        "adam_g": optimizer_g,
        "adam_d": optimizer_d,
    }
    fit(step, state, plan.steps, work, seed=3, save_every=256, log_every=48, title="eg3d-gan")
    assert isinstance(average.module, TriPlaneGenerator)
    return average.module


def _generate(G: TriPlaneGenerator, camera: Tensor) -> tuple[Tensor, Rendering]:
    z, draws = torch.randn(len(camera), G.config.z_dim), torch.rand(len(camera), 1)
    w = G.map(
        z.to(camera.device), swapped(camera, SWAP, draws.to(camera.device)), update_average=torch.is_grad_enabled()
    )
    planes = G.synthesize_planes(w, noise="none")
    return planes, G.render(planes, camera, w=w, draws="random")


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()

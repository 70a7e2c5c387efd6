"""The official EG3D: its networks with our weights, and its training step.

The classes are imported from a checkout of NVlabs/eg3d (the folder that contains `eg3d/`), given by its path. No part
of it is in this project, because its licence differs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamportrait.data.dataset import Batch
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.superresolution import SPECS
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.step_settings import adam_settings
from dreamportrait.training.schedule import Ema, ema_beta


def find(path: Path) -> None:
    """Add the checkout to sys.path, so that its modules can be imported."""
    if (folder := str(path / "eg3d")) not in sys.path:
        sys.path.insert(0, folder)


def make_generator(ours: TriPlaneGenerator, device: str) -> Any:
    """Build the official generator with the same configuration and our weights, which have the same names."""
    from training.triplane import TriPlaneGenerator as Official  # type: ignore[import-not-found]

    c = ours.config
    official = Official(
        z_dim=c.z_dim,
        c_dim=c.c_dim,
        w_dim=c.w_dim,
        img_resolution=c.image_resolution,
        img_channels=3,
        sr_num_fp16_res=4 if c.sr_low_precision else 0,
        mapping_kwargs={"num_layers": c.mapping_layers},
        rendering_kwargs=_rendering(c),
        sr_kwargs={
            "channel_base": c.channel_base,
            "channel_max": c.channel_max,
            "fused_modconv_default": "inference_only",
        },
        channel_base=c.channel_base,
        channel_max=c.channel_max,
        fused_modconv_default="inference_only",
        num_fp16_res=c.num_low_precision,
        conv_clamp=c.conv_clamp,
    )
    weights = {key: value for key, value in ours.state_dict().items() if key != "dataset_label_std"}
    official.load_state_dict(weights, strict=True)
    official.neural_rendering_resolution = c.render_resolution
    return official.to(device).eval().requires_grad_(False)


def _rendering(c: GeneratorConfig) -> dict[str, Any]:
    return {
        "image_resolution": c.image_resolution,
        "disparity_space_sampling": c.disparity,
        "clamp_mode": "softplus",
        "superresolution_module": f"training.superresolution.SuperresolutionHybrid{_super_resolution(c)}",
        "c_scale": c.camera_scale,
        "c_gen_conditioning_zero": not c.camera_conditioning,
        "superresolution_noise_mode": c.sr_noise,
        "decoder_lr_mul": c.decoder_lr_multiplier,
        "sr_antialias": c.sr_antialias,
        "depth_resolution": c.num_coarse,
        "depth_resolution_importance": c.num_fine,
        "ray_start": c.ray_start,
        "ray_end": c.ray_end,
        "box_warp": c.box_warp,
        "white_back": c.white_back,
    }


def _super_resolution(c: GeneratorConfig) -> str:
    """Return the official name of the super-resolution. Raise ValueError if the official code cannot build it."""
    names = [name for name, spec in SPECS.items() if spec == c.superresolution]
    sizes = (c.plane_axes, c.plane_resolution, c.plane_channels, c.decoder_hidden, c.w_dim)
    if not names or sizes != ("official", 256, 32, 64, 512):
        raise ValueError(
            "the official code knows planes of 256 x 256 x 32 with its own axes, a decoder of 64 units, a w of 512 and "
            f"the super-resolutions {', '.join(SPECS)}; this generator has {sizes} and {c.superresolution}"
        )
    return names[0]


def make_discriminator(ours: DualDiscriminator, device: str) -> Any:
    """Build the official discriminator with the same configuration and our weights."""
    from training.dual_discriminator import DualDiscriminator as Official  # type: ignore[import-not-found]

    c = ours.config
    official = Official(
        c_dim=c.c_dim,
        img_resolution=c.image_resolution,
        img_channels=3,
        channel_base=c.channel_base,
        channel_max=c.channel_max,
        num_fp16_res=c.num_low_precision,
        conv_clamp=c.conv_clamp,
        cmap_dim=c.camera_dim,
        disc_c_noise=c.camera_noise,
        mapping_kwargs={"num_layers": c.mapping_layers},
        epilogue_kwargs={"mbstd_group_size": c.group_size, "mbstd_num_channels": c.std_channels},
    )
    official.load_state_dict(ours.state_dict(), strict=True)
    return official.to(device).requires_grad_(False)


class Training:
    """The training step of the official loop: all phases that are due, then the running average.

    The official loss class computes the gradients. The loop itself needs a GPU and a data set on disk, so the rest of
    its step is written here. It omits one thing, which makes it faster: the official loop copies all gradients into one
    tensor and back.
    """

    def __init__(self, generator: TriPlaneGenerator, critic: DualDiscriminator, config: Config, device: str) -> None:
        from training.loss import StyleGAN2Loss  # type: ignore[import-not-found]

        loss = config.loss
        self.config = config
        self.generator = make_generator(generator, device).train()
        self.generator.rendering_kwargs |= {
            "density_reg": loss.density_weight,
            "density_reg_p_dist": 0.004,
            "reg_type": "l1",
        }
        self.critic = make_discriminator(critic, device).train()
        self.loss = StyleGAN2Loss(
            device=torch.device(device),
            G=self.generator,
            D=self.critic,
            r1_gamma=loss.r1_gamma,
            neural_rendering_resolution_initial=generator.config.render_resolution,
            gpc_reg_prob=loss.swap_probability,
            gpc_reg_fade_kimg=0,
            dual_discrimination=True,
        )
        settings = adam_settings(config)
        self.optimizers = {
            module: torch.optim.Adam(module.parameters(), **vars(settings[name]))
            for module, name in ((self.generator, "generator"), (self.critic, "discriminator"))
        }
        self.average = Ema(self.generator)

    def step(self, index: int, batch: Batch) -> None:
        for name, module, every in self.due(index):
            optimizer = self.optimizers[module]
            optimizer.zero_grad(set_to_none=True)
            module.requires_grad_(True)
            self.accumulate(name, batch, every, index)
            module.requires_grad_(False)
            for parameter in module.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
            optimizer.step()
        beta = ema_beta(index * len(batch), len(batch), self.config.optim.ema_images, rampup=None)
        self.average.update(self.generator, beta)

    def due(self, index: int) -> Iterator[tuple[str, nn.Module, int]]:
        """Return the phases that are due, named and ordered as officially: name, network, interval in steps."""
        loss = self.config.loss
        phases = (
            ("Gmain", self.generator, 1),
            ("Greg", self.generator, loss.density_every),
            ("Dmain", self.critic, 1),
            ("Dreg", self.critic, loss.r1_every),
        )
        return (phase for phase in phases if index % phase[2] == 0)

    def accumulate(self, phase: str, batch: Batch, every: int, index: int) -> None:
        z = torch.randn(len(batch), self.generator.z_dim).to(batch.image)
        self.loss.accumulate_gradients(
            phase=phase,
            real_img=batch.image,
            real_c=batch.real.camera,
            gen_z=z,
            gen_c=batch.fake.camera,
            gain=every,
            cur_nimg=index * len(batch),
        )

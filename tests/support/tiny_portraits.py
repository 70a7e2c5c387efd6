"""Tiny text-conditioned generators and their inputs."""

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.encoder import TextFeatures

WIDTH = 6
GENERATOR = GeneratorConfig(
    z_dim=8,
    w_dim=16,
    plane_resolution=32,
    plane_channels=4,
    channel_base=256,
    channel_max=12,
    decoder_hidden=8,
    render_resolution=8,
    num_coarse=4,
    num_fine=4,
    superresolution=SuperResolutionSpec(8, (8, 8), (1, 2), own_filter=False),
    sr_low_precision=False,
)
DISCRIMINATOR = DiscriminatorConfig(image_resolution=16, channel_base=128, channel_max=8, num_low_precision=0)
TEXT = TextFeatures(
    torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0)),
    torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1)),
    torch.tensor([[True, True, True, True], [True, True, False, False]]),
)
# The paper's ablations that change the generator, each with its one setting.
ABLATIONS = {
    "full": {},
    "no pooling": {"pooling": False},
    "no gate": {"gate": False},
    "global only": {"local_path": False},
    "local only": {"global_path": False},
    "two adapters": {"adapters": (4, 16)},
}


def plain(config: GeneratorConfig = GENERATOR) -> TriPlaneGenerator:
    torch.manual_seed(0)
    generator = TriPlaneGenerator(config)
    generator.backbone.mapping.w_avg.normal_()
    return generator.eval()


def equip(settings: dict | None = None, trained: bool = True, config: GeneratorConfig = GENERATOR) -> PortraitGenerator:
    generator = PortraitGenerator.equip(
        plain(config), ConditioningConfig(text_width=WIDTH, token_dim=8, heads=2, **settings or {})
    )
    if trained:
        for parameter in generator.listeners().parameters():
            nn.init.normal_(parameter)
    return generator


def latents() -> tuple[Tensor, Tensor]:
    """Return z and cameras of two portraits."""
    z = torch.randn(2, GENERATOR.z_dim, generator=torch.Generator().manual_seed(2))
    return z, camera_label(official_pose(torch.tensor([1.4, 1.7])), intrinsics_from_fov(18.8))

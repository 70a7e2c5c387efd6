"""Tiny networks of the free-style system."""

import torch

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.eg3d.triplane import TriPlaneGenerator

SIZE = 16  # of pictures
GENERATOR = GeneratorConfig(
    z_dim=8,
    w_dim=16,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    render_resolution=8,
    num_coarse=4,
    num_fine=4,
    superresolution=SuperResolutionSpec(8, (8, 8), (1, 2), own_filter=False),
    sr_low_precision=False,
)


def generator(seed: int = 0) -> TriPlaneGenerator:
    """Return a generator in eval mode, with random weights."""
    torch.manual_seed(seed)
    made = TriPlaneGenerator(GENERATOR)
    made.backbone.mapping.w_avg.normal_()
    return made.eval().requires_grad_(False)

"""Tiny networks of the free-style system."""

from dataclasses import replace

import tiny_training
import torch
from torch import Tensor

from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.fewshot import FewShot
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.network import ImageToTriplane

SIZE = 16  # of pictures
GENERATOR = replace(
    tiny_training.GENERATOR, superresolution=SuperResolutionSpec(8, (8, 8), (1, 2), own_filter=False), sr_noise="none"
)


def generator(seed: int = 0) -> TriPlaneGenerator:
    """Return a generator in eval mode, with random weights."""
    torch.manual_seed(seed)
    made = TriPlaneGenerator(GENERATOR)
    made.backbone.mapping.w_avg.normal_()
    return made.eval().requires_grad_(False)


I2T = I2TConfig.fitting(GENERATOR, code_size=8, code_channels=8)
FRONTS = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) * 2 - 1


def i2t(config: I2TConfig = I2T, seed: int = 0) -> ImageToTriplane:
    """Return an image-to-triplane network with random weights and statistics."""
    torch.manual_seed(seed)
    made = ImageToTriplane(config)
    shape = config.num_planes, config.plane_channels
    made.set_statistics(torch.randn(*shape, config.plane_resolution, config.plane_resolution), torch.rand(shape) + 0.5)
    return made.eval()


def cameras(count: int = 2) -> Tensor:  # [count, 25]
    return GENERATOR.around([20.0 * i - 10 for i in range(count)])


def styled(seed: int = 0) -> PictureTo3D:
    return PictureTo3D(i2t(seed=seed), generator())


def few_shot(identities: int = 2, views: int = 3) -> FewShot:
    """Return a set of noise pictures."""
    numbers = torch.Generator().manual_seed(7)
    pixels = torch.randint(256, (identities, views, 3, SIZE, SIZE), generator=numbers, dtype=torch.uint8)
    names = [f"style {k}" for k in range(identities)]
    return FewShot(pixels, cameras(views), names, list(range(identities)), 1.0, torch.zeros(identities, views))

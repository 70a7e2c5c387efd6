"""Exact pictures of styled faces of the miniature world: what a perfect method would draw."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry.images import from_bytes
from dreamportrait.miniworld.attributes import read_code
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.styled_world import draw_code
from dreamportrait.miniworld.styles import Look, Style
from dreamportrait.systems.freestyle.evaluation import cameras_of

SEED = 41  # of the faces


def exact_pictures(styles: Sequence[Style], faces: int, config: GeneratorConfig) -> Tensor:  # [S * F * V, 3, R, R]
    """Draw faces in each style, each with a hidden variant of its own, from the cameras that heads are seen from."""
    found = []
    for style in styles:
        rng = np.random.Generator(np.random.PCG64([SEED, *style.name.encode()]))
        for _ in range(faces):
            face, traits = read_code(draw_code(rng))
            look = Look(style, int(rng.integers(style.variants)))
            for camera in cameras_of(config).numpy():
                picture = render(face, traits, camera, config.image_resolution, look)
                found.append(torch.from_numpy(picture.image).permute(2, 0, 1))
    return from_bytes(torch.stack(found))

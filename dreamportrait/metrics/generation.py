"""Portraits to be measured. One depends on the seed and on its own number alone, whatever is in the batch with it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dreamportrait.generator.triplane import Rendering
from dreamportrait.rendering.orbit import orbit
from dreamportrait.text.encoder import TextFeatures
from dreamportrait.text.generator import PortraitGenerator

SAMPLES, IDENTITIES = 0, 1  # independent streams of one seed


class Encoder(Protocol):
    """What turns prompts into what the generator listens to."""

    def encode(self, prompts: list[str]) -> TextFeatures: ...


@dataclass(frozen=True)
class Planes:
    """Portraits in memory, to be looked at from any side."""

    generator: PortraitGenerator
    ws: Tensor  # [N, num_ws, w_dim]
    planes: Tensor  # [N, 3, C, H, W]

    def view(self, camera: Tensor) -> Rendering:  # [N, 25]
        return self.generator.render(self.planes, camera.to(self.planes.device), w=self.ws)

    def turned(self, degrees: float) -> tuple[Rendering, Tensor]:  # -> view, cameras [N, 25]
        camera = frontal(self.generator, degrees).expand(len(self.ws), -1)
        return self.view(camera), camera


def portray(
    generator: PortraitGenerator,
    text: Encoder,
    prompts: list[str],
    latents: Tensor,  # [N, z_dim]
    truncation: float,
) -> Planes:
    """The identity is conditioned by the frontal camera, as in the pipeline: one portrait for all its views."""
    device = next(generator.parameters()).device
    features = TextFeatures(*(x.to(device) for x in vars(text.encode(prompts)).values()))
    front = frontal(generator, 0.0).to(device).expand(len(prompts), -1)
    ws = generator.map(latents.to(device), front, features, truncation)
    return Planes(generator, ws, generator.synthesize_planes(ws, features))


def latents(size: int, seed: int, stream: int, numbers: list[int]) -> Tensor:  # [N, size]
    """Drawn on the CPU, so that they are the same on every device."""
    return torch.cat([torch.randn(1, size, generator=_numbers(seed, stream, number)) for number in numbers])


def _numbers(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def frontal(generator: PortraitGenerator, degrees: float) -> Tensor:  # [1, 25]
    """So many degrees to the right of the front, as one looks at the face; as far away as training cameras."""
    return orbit([degrees], 0.0, generator.config.camera_radius, generator.config.camera_pivot)


def as_saved(images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1, or a little beyond
    """As they are after they were written to files of 8 bits a colour, which real pictures come from."""
    return (images.float() * 127.5 + 128).clamp(0, 255).floor().div(127.5).sub(1)


def from_bytes(images: Tensor) -> Tensor:  # uint8 -> -1 .. 1
    return images.float().div(127.5).sub(1)

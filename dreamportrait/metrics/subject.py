"""The interface of a generator that can be measured, and the latents of its samples."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dreamportrait.geometry.views import Heads

SAMPLES, IDENTITIES = 0, 1  # independent streams of random numbers for the same seed


class SubjectConfig(Protocol):
    """The sizes and cameras of the heads."""

    @property
    def z_dim(self) -> int: ...

    @property
    def image_resolution(self) -> int: ...

    @property
    def render_resolution(self) -> int: ...  # before super-resolution

    @property
    def camera_radius(self) -> float: ...

    @property
    def box_warp(self) -> float: ...  # the width of the rendered box

    def around(self, yaw: Sequence[float], pitch: float = 0.0) -> Tensor: ...  # [V, 25]


class Subject(Protocol):
    """A text-to-3D generator of any system. It turns prompts and latents into heads."""

    @property
    def config(self) -> SubjectConfig: ...

    def portray(self, prompts: list[str], latents: Tensor, truncation: float) -> Heads: ...  # N prompts, [N, z_dim]


@runtime_checkable
class Unprompted(Protocol):
    """A subject that can also make heads from latents alone. What text changes can then be compared with them."""

    def portray_without_text(self, latents: Tensor, truncation: float) -> Heads: ...  # [N, z_dim]


class Loaded(NamedTuple):
    """A subject that was read from disk."""

    subject: Subject
    network: nn.Module  # its weights identify the subject
    about: dict[str, Any]  # where it comes from, and which text features it reads


def latents(size: int, seed: int, stream: int, numbers: list[int]) -> Tensor:  # [N, size]
    """Draw each latent on the CPU from the seed and the sample's number, so that the batch size does not matter."""
    return torch.cat([torch.randn(1, size, generator=_numbers(seed, stream, number)) for number in numbers])


def _numbers(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)

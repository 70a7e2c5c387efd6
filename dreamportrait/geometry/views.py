"""Rendered views of heads: the protocols that metrics and exporters use, and Views, one head from several cameras."""

from dataclasses import dataclass
from typing import Protocol

from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.geometry.images import to_bytes


class View(Protocol):
    """Pictures of N heads, each from one camera."""

    @property
    def image(self) -> Tensor: ...  # [N, 3, R, R] in -1 .. 1, or slightly beyond

    @property
    def image_raw(self) -> Tensor: ...  # [N, 3, r, r] before super-resolution

    @property
    def depth(self) -> Tensor: ...  # [N, 1, r, r] along the ray

    @property
    def weights(self) -> Tensor: ...  # [N, 1, r, r] opacity, 0 .. 1


class Heads(Protocol):
    """N heads in memory that can be rendered from any side. Every system produces such heads."""

    def view(self, camera: Tensor) -> View: ...  # [N, 25]


@dataclass(frozen=True, eq=False)
class Views:
    """Pictures of one head from V cameras."""

    cameras: Tensor  # [V, 25]
    colors: Tensor  # [V, 3, R, R] in -1 .. 1, or slightly beyond
    depth: Tensor  # [V, 1, r, r] along the ray, of the image before super-resolution
    opacity: Tensor  # [V, 1, r, r] 0 .. 1

    @property
    def images(self) -> Array:  # [V, R, R, 3] uint8
        return to_bytes(self.colors)

    @property
    def pictures(self) -> list[Image.Image]:
        return [Image.fromarray(pixels) for pixels in self.images]

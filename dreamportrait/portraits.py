"""Portraits that can be looked at from any side, each kept as its planes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.export.sheets import Row, depth_to_images, draw_sheet, save_picture, to_bytes
from dreamportrait.rendering.cameras import check_camera
from dreamportrait.rendering.orbit import orbit
from dreamportrait.text.generator import PortraitGenerator

Cameras = Tensor | Array | Sequence[float] | Sequence[Sequence[float]]  # one label of 25 numbers, or several


@dataclass(frozen=True, eq=False)
class Views:
    """One portrait from V cameras."""

    cameras: Tensor  # [V, 25]
    colors: Tensor  # [V, 3, R, R] in -1 .. 1, a little beyond here and there
    depth: Tensor  # [V, 1, r, r] along the ray, of the image before super-resolution
    opacity: Tensor  # [V, 1, r, r] 0 .. 1

    @property
    def images(self) -> Array:  # [V, R, R, 3] uint8
        return to_bytes(self.colors)

    @property
    def pictures(self) -> list[Image.Image]:
        return [Image.fromarray(pixels) for pixels in self.images]


@dataclass(frozen=True, eq=False, repr=False)
class Portrait:
    """Keeps what further views are rendered from."""

    prompt: str
    seed: int
    planes: Tensor  # [3, C, H, W]
    ws: Tensor  # [num_ws, w_dim]; super-resolution reads it too
    views: Views  # those that were asked for
    generator: PortraitGenerator  # renders

    @property
    def images(self) -> Array:  # [V, R, R, 3] uint8
        return self.views.images

    @property
    def pictures(self) -> list[Image.Image]:
        return self.views.pictures

    @property
    def colors(self) -> Tensor:  # [V, 3, R, R] in -1 .. 1
        return self.views.colors

    @property
    def depth(self) -> Tensor:  # [V, 1, r, r]
        return self.views.depth

    def view(self, yaw: float = 0.0, pitch: float = 0.0, resolution: int | None = None) -> Views:
        """From so many degrees to the right of the front, as one looks at the face, and above it."""
        return self.render(around(self.generator, [yaw], pitch), resolution)

    def render(
        self,
        camera: Cameras,  # [25] or [V, 25]
        resolution: int | None = None,  # of the image before super-resolution. None = the generator's
    ) -> Views:
        (views,) = render_views(self.generator, self.planes[None], self.ws[None], camera_labels(camera), resolution)
        return views

    def sheet(self, depth: bool = False) -> Image.Image:
        return _sheet([self], depth)

    def save_sheet(self, path: str | Path, depth: bool = False, overwrite: bool = False) -> None:
        """Its prompt and its views in a row; `depth`: with their depths below."""
        save_picture(self.sheet(depth), path, overwrite)

    def __repr__(self) -> str:
        return f"Portrait({self.prompt!r}, seed={self.seed}, {len(self.views.cameras)} views)"


class Portraits(Sequence[Portrait]):
    """Of one call, in the order of the prompts."""

    def __init__(self, portraits: Iterable[Portrait]) -> None:
        self._portraits = tuple(portraits)

    def __len__(self) -> int:
        return len(self._portraits)

    def __iter__(self) -> Iterator[Portrait]:
        return iter(self._portraits)

    @overload
    def __getitem__(self, index: int) -> Portrait: ...

    @overload
    def __getitem__(self, index: slice) -> "Portraits": ...

    def __getitem__(self, index: int | slice) -> "Portrait | Portraits":
        return Portraits(self._portraits[index]) if isinstance(index, slice) else self._portraits[index]

    @property
    def images(self) -> Array:  # [N, V, R, R, 3] uint8
        return np.stack([portrait.images for portrait in self])

    @property
    def colors(self) -> Tensor:  # [N, V, 3, R, R] in -1 .. 1
        return torch.stack([portrait.colors for portrait in self])

    @property
    def depth(self) -> Tensor:  # [N, V, 1, r, r]
        return torch.stack([portrait.depth for portrait in self])

    def sheet(self, depth: bool = False) -> Image.Image:
        return _sheet(self._portraits, depth)

    def save_sheet(self, path: str | Path, depth: bool = False, overwrite: bool = False) -> None:
        """A row for each prompt; `depth`: with another one below it."""
        save_picture(self.sheet(depth), path, overwrite)

    def __repr__(self) -> str:
        return f"Portraits({list(self)})"


# Views.


def around(generator: PortraitGenerator, yaw: Sequence[float], pitch: float = 0.0) -> Tensor:  # [V, 25]
    """As far away as the training cameras were."""
    return orbit(yaw, pitch, generator.config.camera_radius, generator.config.camera_pivot)


@torch.no_grad()
def render_views(
    generator: PortraitGenerator,
    planes: Tensor,  # [N, 3, C, H, W]
    ws: Tensor,  # [N, num_ws, w_dim]
    cameras: Tensor,  # [V, 25]
    resolution: int | None = None,
) -> list[Views]:
    """The views of each of N portraits, one camera after the other."""
    cameras = cameras.to(planes.device)
    seen = [generator.render(planes, camera.expand(len(planes), -1), w=ws, resolution=resolution) for camera in cameras]
    colors = torch.stack([view.image.float() for view in seen], 1)  # [N, V, 3, R, R]
    depth, opacity = (torch.stack(parts, 1) for parts in zip(*((v.depth, v.weights) for v in seen), strict=True))
    return [Views(cameras, *parts) for parts in zip(colors, depth, opacity, strict=True)]


def _sheet(portraits: Sequence[Portrait], depth: bool) -> Image.Image:
    near, far = (float(edge) for edge in torch.stack([portrait.depth for portrait in portraits]).aminmax())
    rows = []
    for portrait in portraits:
        rows.append(Row(portrait.prompt, portrait.colors))
        if depth:
            rows.append(Row("", depth_to_images(portrait.depth, near, max(far, near + 1e-6))))
    return draw_sheet(rows)


# Arguments.


def camera_labels(cameras: Cameras) -> Tensor:  # [V, 25]
    try:
        given = cameras.detach().cpu() if isinstance(cameras, Tensor) else torch.from_numpy(np.array(cameras, float))
    except (TypeError, ValueError):
        raise TypeError(f"cameras must be labels of 25 numbers, [25] or [V, 25], got {cameras!r}") from None
    labels = given.float()[None] if given.ndim == 1 else given.float()
    if labels.ndim != 2 or not len(labels):
        raise ValueError(f"cameras must be [25] or [V, 25] with at least one row, got shape {list(given.shape)}")
    return check_camera(labels)

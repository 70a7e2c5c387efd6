"""Portraits: the prompt, the seed, a head that can be rendered from any side, and the requested views of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.sheets import Row, depth_to_images, draw_sheet, save_picture
from dreamportrait.geometry.cameras import Cameras, camera_labels
from dreamportrait.geometry.views import Views


@dataclass(frozen=True, eq=False, repr=False)
class Portrait:
    """One head with its prompt, its seed and its requested views."""

    prompt: str
    seed: int | None  # None = drawn from a torch.Generator
    head: Planes  # tri-planes of one head; can render further views
    views: Views

    @property
    def planes(self) -> Tensor:  # [3, C, H, W]
        return self.head.planes[0]

    @property
    def ws(self) -> Tensor:  # [num_ws, w_dim]
        return self.head.ws[0]

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
        """Render one view from `yaw` degrees to the right of the front and `pitch` degrees above it.

        Right is the viewer's right when facing the head.
        """
        return self.render(self.head.generator.config.around([yaw], pitch), resolution)

    def render(
        self,
        camera: Cameras,  # [25] or [V, 25]
        resolution: int | None = None,  # of the image before super-resolution. None = the generator's
    ) -> Views:
        """Render a view from each camera."""
        (views,) = self.head.views(camera_labels(camera), resolution)
        return views

    def sheet(self, depth: bool = False) -> Image.Image:
        return _sheet([self], depth)

    def save_sheet(self, path: str | Path, depth: bool = False, overwrite: bool = False) -> None:
        """Save a picture of the prompt and its views in a row; `depth` adds a row of depth maps."""
        save_picture(self.sheet(depth), path, overwrite)

    def __repr__(self) -> str:
        return f"Portrait({self.prompt!r}, seed={self.seed}, {len(self.views.cameras)} views)"


class Portraits(Sequence[Portrait]):
    """The portraits of one call, in the order of the prompts."""

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
        """Save a picture with a row for each prompt; `depth` adds a row of depth maps below each."""
        save_picture(self.sheet(depth), path, overwrite)

    def __repr__(self) -> str:
        return f"Portraits({list(self)})"


def _sheet(portraits: Sequence[Portrait], depth: bool) -> Image.Image:
    near, far = (float(edge) for edge in torch.stack([portrait.depth for portrait in portraits]).aminmax())
    rows = []
    for portrait in portraits:
        rows.append(Row(portrait.prompt, portrait.colors))
        if depth:
            rows.append(Row("", depth_to_images(portrait.depth, near, max(far, near + 1e-6))))
    return draw_sheet(rows)

"""Heads kept in memory as tri-planes, which can be rendered from any camera."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.geometry.views import Views


@dataclass(frozen=True, eq=False)
class Planes:
    """N heads as tri-planes. Rendering a view does not run the backbone again."""

    generator: TriPlaneGenerator  # renders the views
    planes: Tensor  # [N, 3, C, H, W]
    ws: Tensor  # [N, num_ws, w_dim]; super-resolution reads it

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, index: int) -> "Planes":
        """Return one of the heads."""
        return Planes(self.generator, self.planes[index][None], self.ws[index][None])

    def __iter__(self) -> Iterator["Planes"]:
        return (self[i] for i in range(len(self)))

    def view(self, camera: Tensor, resolution: int | None = None) -> Rendering:  # [N, 25]
        """Render each head from its own camera. resolution: before super-resolution; None = the generator's."""
        return self.generator.render(self.planes, camera.to(self.planes.device), w=self.ws, resolution=resolution)

    @torch.no_grad()
    def views(self, cameras: Tensor, resolution: int | None = None) -> list[Views]:  # [V, 25]
        """Render all heads from the same V cameras, one camera after the other. Return the views of each head."""
        cameras = cameras.to(self.planes.device)
        seen = [self.view(camera.expand(len(self), -1), resolution) for camera in cameras]
        colors = torch.stack([view.image.float() for view in seen], 1)  # [N, V, 3, R, R]
        depth, opacity = (torch.stack(parts, 1) for parts in zip(*((v.depth, v.weights) for v in seen), strict=True))
        return [Views(cameras, *parts) for parts in zip(colors, depth, opacity, strict=True)]

"""Heads from frontal pictures: H with the frozen decoder and super-resolution of a generator.

styled = PictureTo3D(i2t, generator)
head = styled.heads(front)            # a Planes: any exporter, the viewer and metrics take it
head.view(camera)

H predicts differences, from planes that are the same for all pictures (the paper's way) or from those that the
generator itself makes of H's guess of w (`around` of I2TConfig). The guess is learnt in a fraction of the time that
planes take, and H then adds what w cannot say. No gradient flows through these planes.
"""

import torch
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.systems.freestyle.network import ImageToTriplane, Prediction


class PictureTo3D:
    """Render what H makes of pictures. The generator's weights are frozen; gradients pass through it to H.

    It is not an nn.Module, so that the generator is not saved in the checkpoints of a module that holds it.
    """

    def __init__(self, i2t: ImageToTriplane, generator: TriPlaneGenerator) -> None:
        i2t.config.check_fits(generator.config)
        self.i2t = i2t
        self.generator = generator.eval().requires_grad_(False)

    def heads(self, front: Tensor) -> Planes:  # [N, 3, R, R] in -1 .. 1
        """Return heads. Gradients flow to H unless they are turned off."""
        return self.planes(self.i2t(front))

    def planes(self, made: Prediction) -> Planes:
        """Return what H predicted as heads that can be rendered."""
        ws, planes = self.ws(made.w), made.planes
        if self.i2t.config.around == "guess":
            with torch.no_grad():
                change = self.generator.synthesize_planes(ws, noise="const") - self.i2t.mean_planes
            planes = planes + change
        return Planes(self.generator, planes, ws)

    def ws(self, w: Tensor) -> Tensor:  # [N, w_dim] -> [N, num_ws, w_dim]
        return w[:, None].expand(-1, self.generator.num_ws, -1)

    def render(self, made: Prediction, camera: Tensor, resolution: int | None = None) -> Rendering:  # [N, 25]
        """Render each head from a camera of its own."""
        return self.planes(made).view(camera, resolution)


@torch.no_grad()
def plane_statistics(generator: TriPlaneGenerator, ws: Tensor, batch: int = 16) -> tuple[Tensor, Tensor]:
    """Return the mean planes [P, C, H, W] of heads w [M, w_dim], and the deviations [P, C] of channels around them.

    The deviation is the root of the mean square over heads and positions. Sums are in double precision: planes are
    large, and their squares are subtracted.
    """
    total = squares = None
    for part in ws.split(batch):
        planes = generator.synthesize_planes(part[:, None].expand(-1, generator.num_ws, -1), noise="const").double()
        total = planes.sum(0) if total is None else total + planes.sum(0)
        squares = planes.square().sum(0) if squares is None else squares + planes.square().sum(0)
    assert total is not None and squares is not None
    mean = total / len(ws)
    variance = (squares / len(ws) - mean.square()).mean((2, 3)).clamp_min(0)
    return mean.float(), variance.sqrt().float()

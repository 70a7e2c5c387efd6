"""A head: a model with weights and a texture, which can be posed, viewed and saved."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.views import Views
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.skinning import posed, to_world

SIZE = 256  # of views, in pixels
WALL = (0.86, 0.88, 0.91)


@dataclass(frozen=True, eq=False)
class Head:
    model: HeadModel
    beta: Tensor  # [m] identity, in standard deviations
    texture: Tensor  # [3, T, T] in 0 .. 1
    prompt: str = ""
    seed: int = 0
    psi: Tensor | None = None  # [e] expressions
    theta: Tensor | None = None  # [K, 3] rotations of the joints: axis times angle in radians
    evolution: tuple[Tensor, ...] = field(default=(), repr=False)  # [3, R, R] each in -1 .. 1, while it was tuned

    @property
    def vertices(self) -> Tensor:  # [V, 3] in the world of the cameras
        """Return where the vertices are, with the expression and the pose."""
        psi, theta = (None if x is None else x[None] for x in (self.psi, self.theta))
        return to_world(self.model, posed(self.model, self.beta[None], psi, theta))[0]

    def posed(self, **values: float | tuple[float, float, float]) -> "Head":
        """Return the head with other expressions and joints; those that are not named stay.

        Expressions are numbers, usually 0 to 1. Joints are three angles in degrees: nodding, turning, tilting.
        """
        psi = torch.zeros(self.model.num_expressions) if self.psi is None else self.psi.clone()
        theta = torch.zeros(self.model.num_joints, 3) if self.theta is None else self.theta.clone()
        for name, value in values.items():
            if isinstance(value, tuple):
                theta[self.model.joint(name)] = torch.deg2rad(torch.tensor(value, dtype=torch.float32))
            else:
                psi[self.model.expression(name)] = value
        return replace(self, psi=psi if self.model.num_expressions else None, theta=theta if len(theta) else None)

    @torch.no_grad()
    def view(self, yaw: float | list[float] = 0.0, pitch: float = 0.0, size: int = SIZE) -> Views:
        """Return pictures from one or several angles, in degrees; 0 is the front, positive is right and above."""
        angles = yaw if isinstance(yaw, list) else [yaw]
        cameras = orbit(angles, pitch, RADIUS, (0.0, 0.0, 0.0))
        drawn = render(self.vertices[None], self.model, self.texture, cameras, 2 * size, torch.tensor(WALL))
        return Views(cameras, reduced(drawn.image), reduced(drawn.depth), reduced(drawn.mask))

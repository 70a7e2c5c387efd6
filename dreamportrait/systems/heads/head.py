"""A head: a model with weights and a texture, which can be posed, viewed and saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from dreamportrait.core.files import check_target
from dreamportrait.export.sheets import save_sheet
from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.views import Views
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.glb import save_glb
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.skinning import posed, to_world

SIZE = 256  # of views, in pixels
SIDES = (-25.0, 0.0, 25.0)  # degrees; the views on a sheet
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

    def save_sheet(
        self, path: str | Path, yaws: Sequence[float] = SIDES, size: int = SIZE, overwrite: bool = False
    ) -> None:
        """Save pictures from several angles side by side."""
        target = check_target(path, overwrite)
        save_sheet([self.view(list(yaws), size=size).colors], target)

    def save_glb(
        self,
        path: str | Path,
        *,
        track: Track | None = None,
        only_used: bool = False,
        overwrite: bool = False,
        provenance: bool = True,
    ) -> float:
        """Save the head as a GLB, see glb.save_glb. Return the largest share of skin weights that did not fit."""
        return save_glb(self, path, track=track, only_used=only_used, overwrite=overwrite, provenance=provenance)

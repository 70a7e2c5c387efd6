"""Fits a head to views of another head, such as a portrait from tri-planes, so that it gets a rig.

Adam minimises, over the identity, a few degrees of the neck and the expressions,

    |depth - depth seen| + |silhouette - silhouette seen| + 0.1 |colour - colour seen| + 1e-3 |beta|^2

where the depths count where both heads are. Hair stands out of a bald mesh, so that a mesh that ends inside of the
silhouette costs less than one that ends outside. The texture is then taken from the views, see painting.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh_views import look_at_head
from dreamportrait.geometry.views import Views
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.painting import painted
from dreamportrait.systems.heads.render import Rendering, render
from dreamportrait.systems.heads.skinning import posed, to_world

YAWS = [-25.0, -12.5, 0.0, 12.5, 25.0]  # degrees; where views are taken from
STEPS, RATE = 80, 0.06  # of Adam
SIZE = 64  # pixels of the views that are compared
LIMIT = 2.5  # standard deviations
FAR = 0.08  # depths count up to this difference, which hair and glasses exceed
INSIDE = 0.3  # how much it costs that the mesh ends inside of the silhouette, relative to outside
COLOUR, IDENTITY, EXPRESSION = 0.1, 1e-3, 1e-2


def around(head: Planes) -> Views:
    """Render views of a portrait's head from which another head can be fitted, without its background."""
    seen = look_at_head(head, head.generator.config.around(YAWS))
    return Views(seen.cameras, seen.colors, seen.depth[:, None], seen.opacity[:, None])


def from_views(model: HeadModel, views: Views) -> Head:
    """Return a head that looks like the views, with their texture."""
    if model.mean_texture is None:
        raise ValueError(f"head model {model.name!r} has no mean texture to start from")
    seen = _Seen.of(views, SIZE)
    beta = torch.zeros(1, model.num_shapes, requires_grad=True)
    psi = torch.zeros(1, model.num_expressions, requires_grad=True)
    neck = torch.zeros(3, requires_grad=True)
    weights = [beta, psi, neck]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=RATE / 20)
    for _ in range(STEPS):
        vertices = to_world(model, posed(model, beta, psi if psi.numel() else None, _turned(model, neck)))
        drawn = render(vertices, model, model.mean_texture, views.cameras, SIZE, torch.zeros(3))
        loss = seen.distance(drawn) + IDENTITY * beta.square().sum() + EXPRESSION * psi.square().sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            beta.clamp_(-LIMIT, LIMIT)
            psi.clamp_(0, 1)
            neck.clamp_(-0.3, 0.3)
    theta = _turned(model, neck.detach())
    found = Head(
        model,
        beta.detach()[0],
        model.mean_texture,
        psi=psi.detach()[0] if psi.numel() else None,
        theta=None if theta is None else theta[0],
    )
    return painted(found, views)


def _turned(model: HeadModel, neck: Tensor) -> Tensor | None:  # [3] -> [1, K, 3]
    if "neck" not in model.joint_names:
        return None
    rows = [neck if name == "neck" else torch.zeros(3) for name in model.joint_names]
    return torch.stack(rows)[None]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Views in the size in which they are compared."""

    colors: Tensor  # [V, 3, S, S] in -1 .. 1
    depth: Tensor  # [V, 1, S, S]
    opacity: Tensor  # [V, 1, S, S]

    @classmethod
    def of(cls, views: Views, size: int) -> "_Seen":
        def sized(x: Tensor) -> Tensor:
            return F.interpolate(x.detach().float(), (size, size), mode="area")

        return cls(sized(views.colors), sized(views.depth), sized(views.opacity))

    def distance(self, drawn: Rendering) -> Tensor:  # []
        both = ((self.opacity > 0.95) & (drawn.mask > 0.95)).float()
        count = both.sum().clamp_min(1)
        depth = (((drawn.depth - self.depth).abs().clamp_max(FAR)) * both).sum() / count
        colour = ((drawn.image - self.colors).abs().mean(1, keepdim=True) * both).sum() / count
        out = (drawn.mask - self.opacity).clamp_min(0).mean()
        within = (self.opacity - drawn.mask).clamp_min(0).mean()
        return 10 * depth + out + INSIDE * within + COLOUR * colour  # 0.1 in depth weighs as much as a whole silhouette

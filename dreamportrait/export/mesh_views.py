"""The views that a mesh is made from, with the head separated from the background behind it.

Generators trained on photographs draw a background: a wall behind the head, which makes every ray opaque. The opacity
of the head alone is the opacity of what lies in the space of the head, see `HeadViews.space`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.geometry.rays import points_at, rays_from_label
from eg3d_ops import render_rays
from eg3d_ops.sampling import auto_limits

YAW, PITCH = 24.0, 10.0  # degrees; within the range of the training cameras of portraits
HALF = 0.5  # opacity from which a ray counts as stopped
FAINT = 0.1  # opacity from which a ray sees something: dark backgrounds need not be opaque
BINS = 40  # of the histogram of depths


@dataclass(frozen=True, eq=False)
class HeadViews:
    """Pictures of one head and the opacity of the head without its background."""

    cameras: Tensor  # [V, 25]; the first is the front
    colors: Tensor  # [V, 3, R, R] in -1 .. 1, or slightly beyond
    opacity: Tensor  # [V, r, r] of the head alone
    depth: Tensor  # [V, r, r] of the head alone
    back: float | None  # z of the plane between the head and the background. None = no background is drawn
    # Half-spaces a x + b y + c z + d >= 0 that hold the head: in front of `back`, and within the front picture's left,
    # right and upper edge. Beyond them, side views show shapes that the generator never learnt: ghosts.
    space: Tensor  # [K, 4]

    @property
    def masks(self) -> Array:  # [V, r, r] bool
        return (self.opacity > HALF).numpy()


def mesh_cameras(config: GeneratorConfig) -> Tensor:  # [5, 25]
    """Return the cameras that a mesh is made from: the front, both sides, from above and from below."""
    return torch.cat([config.around([0.0, -YAW, YAW]), config.around([0.0], PITCH), config.around([0.0], -PITCH)])


@torch.no_grad()
def look_at_head(head: Planes, cameras: Tensor) -> HeadViews:
    """Render one head from each camera and separate it from the background. Results are on the CPU.

    Raises ValueError if no ray of any view becomes half opaque.
    """
    views = head.views(cameras)[0]
    cameras, opacity, depth = cameras.cpu(), views.opacity.float().cpu(), views.depth.float().cpu()
    _check_something(opacity, "")
    z = points_at(depth, cameras)[..., 2].reshape(depth.shape)
    back = find_back(z[:, 0], opacity[:, 0], head.generator.config.box_warp)
    space = head_space(cameras[0], back)
    alone, distance = opacity_of_head(head, cameras, space)
    _check_something(alone, " in front of the background")
    return HeadViews(cameras, views.colors.float().cpu(), alone, distance, back, space)


def _check_something(opacity: Tensor, where: str) -> None:
    if not (opacity > HALF).any():
        raise ValueError(
            f"this head is empty: no ray of {len(opacity)} views becomes half opaque{where}, the largest opacity is "
            f"{float(opacity.max()):.3g}; a mesh needs a density field, so use a trained model or another seed"
        )


def find_back(z: Tensor, opacity: Tensor, box: float) -> float | None:
    """Return the z of a plane between head and background, or None if no background is drawn.

    z [V, r, r] of the visible surface and opacity [V, r, r]. A background is not clear along the upper edges of
    the pictures and lies behind their middle. The plane is where the fewest pixels see a surface.
    """
    r = z.shape[-1]
    edge = torch.zeros(r, r, dtype=torch.bool)
    edge[: max(r // 32, 1)] = True
    edge[: r // 2, [0, -1]] = True
    seen = opacity > FAINT
    if seen[:, edge].float().mean() < 0.5:
        return None
    quarter = slice(3 * r // 8, max(5 * r // 8, 3 * r // 8 + 1))
    far = float(z[:, edge][seen[:, edge]].quantile(0.25))
    near = float(z[:, quarter, quarter].median())
    if near - far < 0.1 * box:
        return None
    counts, edges = np.histogram(z[seen].numpy(), bins=np.linspace(far, near, BINS + 1))
    smooth = np.convolve(counts, np.ones(5), "valid")  # entry i is centred on bin i + 2
    emptiest = int(smooth.argmin()) + 2
    return float(edges[emptiest : emptiest + 2].mean())


def head_space(front: Tensor, back: float | None) -> Tensor:  # [25] -> [K, 4]
    """Return the half-spaces a x + b y + c z + d >= 0 that hold the head: see `HeadViews.space`."""
    matrix, k = front[:16].reshape(4, 4), front[16:].reshape(3, 3)
    fx, cx, fy, cy = (float(k[i, j]) for i, j in ((0, 0), (0, 2), (1, 1), (1, 2)))
    inward = torch.tensor([[fx, 0, cx], [-fx, 0, 1 - cx], [0, fy, cy]])  # left, right, top edge in the camera's axes
    normals = torch.nn.functional.normalize(inward @ matrix[:3, :3].mT, dim=1)
    planes = torch.cat([normals, -normals @ matrix[:3, 3:]], 1)
    if back is not None:
        planes = torch.cat([planes, planes.new_tensor([[0, 0, 1, -back]])])
    return planes


@torch.no_grad()
def opacity_of_head(head: Planes, cameras: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
    """Render opacity and depth [V, r, r] of what lies in the half-spaces [K, 4], one camera after the other."""
    c, found, space = head.generator.config, [], space.to(head.planes.device)
    for camera in cameras.to(head.planes.device):
        origins, directions = rays_from_label(camera[None], c.render_resolution)
        near, far = _limits(c, origins, directions)
        for plane in space:
            height, slope = origins @ plane[:3, None] + plane[3], directions @ plane[:3, None]  # [1, M, 1]
            crossing = -height / torch.where(slope == 0, 1e-12, slope)
            near = torch.where(slope > 0, torch.maximum(near, crossing), near)
            far = torch.where(slope < 0, torch.minimum(far, crossing), far)
        missed = far <= near
        rays = render_rays(
            head.planes,
            origins,
            directions,
            head.generator.decoder.weights(),
            plane_axes=c.plane_axes,
            ray_start=near,
            ray_end=torch.where(missed, near + c.box_warp, far),
            box_warp=c.box_warp,
            num_coarse=c.num_coarse,
            num_fine=c.num_fine,
            disparity=c.disparity,
        )
        opacity = torch.where(missed, 0.0, rays.weights)
        found.append(torch.stack([opacity[0, :, 0], rays.depth[0, :, 0]]).float().cpu())
    size = c.render_resolution
    opacity, depth = torch.stack(found).unflatten(-1, (size, size)).unbind(1)
    return opacity, depth


def _limits(config: GeneratorConfig, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:  # 2 x [N, M, 1]
    start, end = config.ray_start, config.ray_end
    if isinstance(start, str) or isinstance(end, str):
        return auto_limits(origins, directions, config.box_warp)
    return torch.full_like(origins[..., :1], start), torch.full_like(origins[..., :1], end)

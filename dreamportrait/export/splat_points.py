"""The points of a head that become splats: where rays of a few views meet the surface, and what is known there.

A ray stops where it has met a share of its opacity: half, or shares that differ from ray to ray, so that fog becomes a
cloud of points. Expected depths, which renderers return, lie in the air between head and background at the edges of the
head; these depths do not.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes, trained_angles
from dreamportrait.eg3d.triplane import Rendering
from dreamportrait.export.mesh_field import Axes, box_axis, density_on_grid
from dreamportrait.export.mesh_views import find_back, head_space
from dreamportrait.export.progress import Report, silent
from dreamportrait.geometry.rays import points_at
from eg3d_ops import decode, sample_planes
from eg3d_ops.sampling import auto_limits

STEPS = 24  # samples of the density along a ray
QUARTILES = (0.25, 0.75)  # of a ray's opacity; the depths between them say how soft the surface is
SHARES = (0.05, 0.95)  # of a ray's opacity that lies in front of its point
FAINT = 0.05  # opacity of a ray that sees nothing
MARGIN = 1.04  # views are this much wider than the training pictures
AROUND = 1.15  # edge of the grid of densities, in edges of the box: rays also see what surrounds the box
DEPTH_TOLERANCE = 3.0  # pixels; pixels whose depth differs by more give little colour to a point
SURPLUS = 1.05  # rays per wanted point
MOST_RAYS = 10  # per wanted point, where views see little
FEATURES = 20  # numbers that the network reads for each point


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """N points in the world's units, and where they were seen."""

    positions: Tensor  # [N, 3]
    frames: Tensor  # [N, 3, 3] columns: two tangents and the normal
    spacing: Tensor  # [N] distance to the next point of the same view
    colors: Tensor  # [N, 3] of the view, 0 .. 1
    opacity: Tensor  # [N] of the ray
    features: Tensor  # [N, FEATURES] read from the planes and the pictures, without units

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Tensor) -> "SurfacePoints":
        return SurfacePoints(*(getattr(self, field.name)[chosen] for field in fields(self)))


@torch.no_grad()
def surface_points(
    head: Planes,
    count: int,
    background: bool = True,
    spread: bool = True,  # over the depths where a ray fades. False: all points where half of the opacity is met
    report: Report = silent,
) -> SurfacePoints:
    """Return at most `count` points of one head, evenly distributed over the views.

    Without `background`, points outside the space of the head are left out: the wall behind it, and ghosts beside it.
    Raises ValueError if no view sees anything.
    """
    c, cameras = head.generator.config, splat_cameras(head).to(head.planes.device)
    views: list[Rendering] = []
    for camera in cameras:
        report(0.7 * len(views) / len(cameras))
        views.append(head.view(camera[None]))
    space = None if background else _space_of_head(views, cameras, c)
    volume = _density_volume(head)
    parts = []
    for view, camera, wanted in zip(views, cameras, _shares(count, len(cameras)), strict=True):
        share = float(_kept(view, camera, space).float().mean())
        if not share:
            continue
        rays = math.ceil(wanted * min(SURPLUS / share, MOST_RAYS))
        places = lattice(rays, cameras.device)
        shares = _spread(rays, cameras.device) if spread else torch.full_like(places[:, 0], 0.5)
        found = _look(head, volume, view, camera, places, shares)
        keep = found.opacity > FAINT
        if space is not None:
            keep &= _within(space, found.positions)
        found = found[keep.nonzero()[:, 0]]
        if len(found) > wanted:
            found = found[torch.linspace(0, len(found) - 1, wanted, device=cameras.device).long()]
        parts.append(found)
    if not sum(map(len, parts)):
        densest = max(float(view.weights.max()) for view in views)
        raise ValueError(
            f"this head is empty: {len(views)} views see nothing, the largest opacity is {densest:.3g}; splats need a "
            "density field, so use a trained model or another seed"
        )
    return SurfacePoints(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(SurfacePoints)))


def splat_cameras(head: Planes) -> Tensor:  # [7, 25]
    """Return the cameras that points come from: over the trained range from left to right, and its corners.

    They are slightly wider than the training cameras.
    """
    yaw, pitch = (min(angle, limit) for angle, limit in zip(trained_angles(head.generator), (60.0, 30.0), strict=True))
    around = head.generator.config.around
    cameras = torch.cat([around([0.0, -yaw / 2, yaw / 2]), around([-yaw, yaw], pitch), around([-yaw, yaw], -pitch)])
    cameras[:, [16, 20]] /= MARGIN
    return cameras


def lattice(count: int, device: torch.device | str = "cpu") -> Tensor:  # [count, 2] in 0 .. 1
    """Return places that are spread evenly over the unit square, for any count: multiples of the golden ratio."""
    index = torch.arange(count, dtype=torch.float64, device=device) + 0.5
    return torch.stack([index / count, (index * ((math.sqrt(5) - 1) / 2)) % 1], 1).float()


def _shares(count: int, views: int) -> list[int]:
    return [count // views + (view < count % views) for view in range(views)]


def _space_of_head(views: list[Rendering], cameras: Tensor, config: GeneratorConfig) -> Tensor:  # [K, 4]
    """Return the half-spaces a x + b y + c z + d >= 0 that hold the head, see `HeadViews.space` in mesh_views.py."""
    depth, opacity = torch.cat([view.depth for view in views]), torch.cat([view.weights for view in views])
    z = points_at(depth, cameras)[..., 2].reshape(len(cameras), *depth.shape[-2:])
    back = find_back(z.float().cpu(), opacity[:, 0].float().cpu(), config.box_warp)
    return head_space(config.around([0.0])[0], back).to(cameras.device)


def _within(space: Tensor, points: Tensor) -> Tensor:  # [K, 4], [N, 3] -> [N] bool
    return (points @ space[:, :3].mT + space[:, 3] >= 0).all(1)


def _kept(view: Rendering, camera: Tensor, space: Tensor | None) -> Tensor:  # [r * r] bool
    """Return which pixels give a point."""
    seen = view.weights.flatten() > FAINT
    return seen if space is None else seen & _within(space, points_at(view.depth, camera[None])[0])


class _Volume:
    """The logarithm of the density on a grid, and its slope."""

    def __init__(self, values: Tensor, box: float) -> None:
        self.values, self.scale = values, 2 / box  # [1, 4, Z, Y, X]

    def logarithm(self, points: Tensor) -> Tensor:  # [..., 3] -> [...]
        return self._look_up(self.values[:, :1], points)[0]

    def slope(self, points: Tensor) -> Tensor:  # [N, 3] -> [N, 3]
        return self._look_up(self.values[:, 1:], points).T

    def _look_up(self, values: Tensor, points: Tensor) -> Tensor:  # [1, K, Z, Y, X], [..., 3] -> [K, ...]
        # On a CPU, PyTorch divides the entries of a batch among threads, not the points. So each thread gets a part.
        flat = points.reshape(-1, 3) * self.scale
        parts = torch.get_num_threads() if values.is_cpu else 1
        length = -(-len(flat) // parts)
        grid = F.pad(flat, (0, 0, 0, parts * length - len(flat))).reshape(parts, 1, 1, length, 3)
        same = values.expand(parts, -1, -1, -1, -1)
        found = F.grid_sample(same, grid, padding_mode="border", align_corners=False)  # [parts, K, 1, 1, length]
        return found.transpose(0, 1).flatten(1)[:, : len(flat)].reshape(values.shape[1], *points.shape[:-1])


def _density_volume(head: Planes) -> _Volume:
    c = head.generator.config
    box, count = AROUND * c.box_warp, min(max(3 * c.plane_resolution // 2, 32), 128)
    logarithm = density_on_grid(head, Axes(*[box_axis(box, count)] * 3)).clamp(min=1e-6).log()
    z, y, x = torch.gradient(logarithm, spacing=box / count)
    return _Volume(torch.stack([logarithm, x, y, z])[None].to(head.planes.device), box)


def _look(
    head: Planes, volume: _Volume, view: Rendering, camera: Tensor, places: Tensor, share: Tensor
) -> SurfacePoints:
    """Return the points [N] at places [N, 2] of one view, in 0 .. 1 from the upper left corner.

    share [N]: of the ray's opacity that lies in front of the point.
    """
    c = head.generator.config
    origin, directions, cosine = _rays(camera, places)
    depth, softness, opacity, density = _stop(c, volume, origin, directions, share)
    positions = origin + depth[:, None] * directions
    pixel = depth * cosine / camera[20] / view.image.shape[-1]  # [N] its size there
    spacing = depth * cosine / camera[20] / math.sqrt(len(places))
    slope = volume.slope(positions)
    normal = _facing(slope, directions)
    colors, agreement = _colors(view, places, depth, DEPTH_TOLERANCE * pixel)
    planes = sample_planes(head.planes, positions[None], c.axes, c.box_warp)  # [1, P, N, C]
    decoded = decode(planes, head.generator.decoder.weights())[1][0, :, :3]
    features = [
        decoded,
        colors,
        normal,
        (positions - positions.new_tensor(c.camera_pivot)) * (2 / c.box_warp),
        torch.stack(
            [
                torch.log1p(softness / pixel),
                share - 0.5,
                -_dot(normal, directions),
                opacity,
                torch.log1p(density * pixel),
                torch.log1p(_dot(slope, slope).sqrt() * pixel),
                agreement,
                torch.log(spacing / pixel),
            ],
            1,
        ),
    ]
    return SurfacePoints(positions, _frames(normal), spacing, colors, opacity, torch.cat(features, 1))


def _rays(camera: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the origin [3], directions [N, 3] of length 1, and their cosine [N] to the camera's axis."""
    matrix = camera[:16].reshape(4, 4)
    fx, skew, cx, fy, cy = camera[[16, 17, 18, 20, 21]].unbind()
    y = (places[:, 1] - cy) / fy
    x = (places[:, 0] - cx - skew * y) / fx
    cosine = 1 / (x * x + y * y + 1).sqrt()
    return matrix[:3, 3], torch.stack([x * cosine, y * cosine, cosine], 1) @ matrix[:3, :3].mT, cosine


def _spread(count: int, device: torch.device) -> Tensor:  # [N] in SHARES
    """Return shares that are spread evenly, also over every small part of the lattice."""
    index = torch.arange(count, dtype=torch.float64, device=device)
    return (SHARES[0] + (SHARES[1] - SHARES[0]) * ((index * (math.sqrt(2) - 1)) % 1)).float()


def _stop(
    config: GeneratorConfig, volume: _Volume, origin: Tensor, directions: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the depths where rays have met their shares of opacity, and three facts about the rays, [N] each.

    The facts are the distance between the quartiles of the opacity, the opacity, and the density at the depth.
    """
    near, far = _limits(config, origin, directions)  # [N, 1]
    step = (far - near) / STEPS
    middles = near + (torch.arange(STEPS, device=near.device) + 0.5) * step  # [N, S]
    places = torch.addcmul(origin, directions[:, None], middles[..., None])  # [N, S, 3]
    thickness = volume.logarithm(places).exp_().mul_(step)  # [N, S]
    passed = thickness.cumsum(1)
    opacity = 1 - torch.exp(-passed[:, -1])
    shares = torch.cat([share[:, None], share.new_tensor(QUARTILES).expand(len(share), 2)], 1)  # [N, 3]
    target = -torch.log1p(-opacity[:, None] * shares)
    index = torch.searchsorted(passed, target).clamp(max=STEPS - 1)
    inside = thickness.gather(1, index)
    within = ((target - passed.gather(1, index) + inside) / inside.clamp(min=1e-9)).clamp(0, 1)
    depths = near + (index + within) * step
    return depths[:, 0], depths[:, 2] - depths[:, 1], opacity, inside[:, 0] / step[:, 0]


def _limits(config: GeneratorConfig, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    start, end = config.ray_start, config.ray_end
    if isinstance(start, str) or isinstance(end, str):
        near, far = auto_limits(origin.expand_as(directions)[None], directions[None], config.box_warp)
        return near[0], far[0]
    return torch.full_like(directions[:, :1], start), torch.full_like(directions[:, :1], end)


def _colors(view: Rendering, places: Tensor, depth: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the colours [N, 3] of a picture at places, and how far the pixels around agree with the depth, [N].

    Pixels are weighted as in bilinear interpolation, times their agreement, so that no colour crosses an edge.
    """
    picture = view.image.float()
    size = picture.shape[-1]
    depths = F.interpolate(view.depth.float(), (size, size), mode="nearest")
    table = torch.cat([picture, depths], 1)[0].flatten(1).T.contiguous()  # [R * R, 4] of the pixels
    at = places * size - 0.5
    first, total, agreement = at.floor(), torch.zeros_like(depth), torch.zeros_like(depth)
    colors = torch.zeros_like(places[:, :1]).expand(-1, 3)
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = first + places.new_tensor(corner)
        across, down = (1 - (at - pixel).abs()).unbind(1)
        column, row = pixel.long().clamp(0, size - 1).unbind(1)
        found, linear = table[row * size + column], across * down
        close = linear * torch.exp(-0.5 * ((found[:, 3] - depth) / tolerance) ** 2)
        weight = close + 1e-4 * linear  # where no pixel agrees, all count
        colors = colors + weight[:, None] * found[:, :3]
        total, agreement = total + weight, agreement + close
    return (colors / total[:, None] + 1) / 2, agreement


def _facing(slope: Tensor, directions: Tensor) -> Tensor:  # [N, 3] twice -> [N, 3]
    """Return unit normals along the slope of the density, on the side that the ray comes from."""
    length, towards = _dot(slope, slope).sqrt()[:, None], -_dot(slope, directions).sign()[:, None]
    return torch.where(length > 1e-6, towards * slope / length.clamp(min=1e-6), -directions)


def _dot(a: Tensor, b: Tensor) -> Tensor:  # [N, 3] twice -> [N]
    """Return scalar products. On a CPU, sums of three columns are several times as fast as sums over the rows."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _frames(normal: Tensor) -> Tensor:  # [N, 3] -> [N, 3, 3]
    """Return rotations whose third column is the normal, turned as little as possible from the world's axes.

    This is Rodrigues' formula for the turn from (0, 0, 1). It fails at (0, 0, -1), which faces away from all views.
    """
    x, y, z = normal.unbind(1)
    shared = 1 / (1 + z).clamp(min=1e-3)
    columns = [
        torch.stack([1 - x * x * shared, -x * y * shared, -x], 1),
        torch.stack([-x * y * shared, 1 - y * y * shared, -y], 1),
        normal,
    ]
    return torch.stack(columns, 2)

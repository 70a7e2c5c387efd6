"""Visibility of triangle meshes: which triangle covers each pixel centre, and is nearest there.

`rasterize` runs compiled code where possible; `_rasterize` is its reference implementation in plain PyTorch. Both
give the same ids, bit for bit, on every device. The op has no gradient; what is differentiable about a picture
(interpolation, silhouettes) is computed from the ids and the vertices.

Coverage is exact. Vertices are rounded to 1/256 of a pixel, edge functions are integers, and a pixel centre on an edge
that two triangles share belongs to exactly one of them (the top-left rule), so that closed meshes have neither cracks
nor doubly covered pixels. Both sides of a triangle are drawn.

Depth. 1/z is linear on the screen. Shares and 1/z are rounded to float32, so that their product is exact in float64
and the sum does not depend on whether a compiler fuses multiplication and addition.
"""

import torch
from torch import Tensor

from ._backend import use_compiled
from ._checks import check_device, check_int, check_tensor
from ._library import LIBRARY, NAMESPACE, define

SUBPIXELS = 256  # vertices are rounded to 1 / SUBPIXELS of a pixel
FARTHEST = 2.0**20  # pixels from the picture's corner; triangles with a vertex beyond are not drawn
NEAR, FAR = 1e-6, 1e6  # triangles with a vertex whose z is not between them are not drawn; nothing is clipped
MAX_SIZE = 2**15  # pixels on a side
_PAIRS = 2**21  # pairs of triangle and pixel that the reference implementation handles at a time
_NOTHING = 2**63 - 1  # the key of a pixel that no triangle covers


def rasterize(
    points: Tensor,  # [N, V, 3] float32: x to the right and y down in pixels, z > 0 away from the camera
    faces: Tensor,  # [F, 3] int32 or int64
    height: int,
    width: int,
    impl: str = "auto",
) -> Tensor:  # [N, H, W] int32
    """Return the index of the nearest triangle at each pixel centre, -1 where there is none.

    The centre of pixel (i, j), in row i and column j, is at x = j + 0.5, y = i + 0.5. Of triangles at equal depth, the
    one with the smaller index is drawn. Triangles with a vertex that is not finite, too far outside or behind the
    camera are not drawn; see FARTHEST, NEAR and FAR.

    impl     "auto", "compiled" or "reference".
    """
    _check_points(points)
    faces = _checked_faces(faces, points)
    for name, size in (("height", height), ("width", width)):
        if check_int(name, size, 1) > MAX_SIZE:
            raise ValueError(f"{name} must be at most {MAX_SIZE}, got {size}")
    points = points.detach()
    if use_compiled(impl, points.device):
        return torch.ops.eg3d_ops.rasterize(points, faces, height, width)
    return _rasterize(points, faces, height, width)


def _check_points(points: Tensor) -> None:
    check_tensor("points", points, 3, "[N, V, 3]")
    if points.shape[2] != 3:
        raise ValueError(f"points must have shape [N, V, 3] (x, y, z), got {list(points.shape)}")
    if points.dtype != torch.float32:
        raise TypeError(f"points must be float32, got {points.dtype}; convert them with points.float()")


def _checked_faces(faces: Tensor, points: Tensor) -> Tensor:
    """Return the faces as int32. Raise an error unless they are [F, 3] indices of vertices."""
    if not isinstance(faces, Tensor) or faces.dtype not in (torch.int32, torch.int64):
        found = faces.dtype if isinstance(faces, Tensor) else type(faces).__name__
        raise TypeError(f"faces must be a tensor of int32 or int64, got {found}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces must have shape [F, 3], got {list(faces.shape)}")
    check_device("faces", faces, "points", points)
    # On a GPU the check would wait for the device; the kernels skip such faces.
    if faces.numel() and faces.device.type == "cpu" and not torch.compiler.is_compiling():
        least, most = int(faces.min()), int(faces.max())
        if least < 0 or most >= points.shape[1]:
            wrong = least if least < 0 else most
            raise ValueError(f"faces must be indices of the {points.shape[1]} vertices, from 0 on; got {wrong}")
    return faces.to(torch.int32)


# ----- The reference implementation -----------------------------------------------------------------------


def _rasterize(points: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Compute rasterize in plain PyTorch. The arguments are the same, already checked."""
    keys = torch.full([len(points), height * width], _NOTHING, dtype=torch.int64, device=points.device)
    for image, vertices in zip(keys, points, strict=True):
        _draw(image, vertices, faces.long(), height, width)
    ids = torch.where(keys == _NOTHING, -1, keys & 0x7FFFFFFF)
    return ids.reshape(-1, height, width).to(torch.int32)


def _draw(keys: Tensor, points: Tensor, faces: Tensor, height: int, width: int) -> None:
    """Lower the keys [H * W] of one picture to those of the triangles that cover its pixels.

    The key of a triangle at a pixel orders by depth, then by index: (2^31 - 1 - bits of 1/z) * 2^32 + index.
    """
    index, corners, inverse = _drawable(points, faces)
    low, high = corners.amin(1), corners.amax(1)  # [F, 2] in 1 / SUBPIXELS
    limits = torch.tensor([width, height], device=points.device)
    first = (-((SUBPIXELS // 2 - low) // SUBPIXELS)).clamp_min(0)  # the first centre that is not left of or above it
    last = ((high - SUBPIXELS // 2) // SUBPIXELS).minimum(limits - 1)
    span = (last - first + 1).clamp_min(0)  # [F, 2]
    counts = span.prod(1)
    for part in _chunks(counts):
        n = counts[part]
        face = torch.repeat_interleave(torch.arange(part.start, part.stop, device=points.device), n)  # [P]
        inside = torch.arange(len(face), device=points.device) - torch.repeat_interleave(n.cumsum(0) - n, n)
        x, y = first[face, 0] + inside % span[face, 0], first[face, 1] + inside // span[face, 0]
        centres = torch.stack([x, y], 1) * SUBPIXELS + SUBPIXELS // 2
        covered, depth = _covered(corners[face], inverse[face], centres)
        bits = depth[covered].view(torch.int32).long()
        found = ((2**31 - 1 - bits) << 32) | index[face[covered]]
        keys.scatter_reduce_(0, (y * width + x)[covered], found, "amin")


def _drawable(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return index [F], corners [F, 3, 2] in 1 / SUBPIXELS and 1/z [F, 3] of the triangles that can be drawn.

    Corners are ordered so that the interior lies to the right of each edge, y pointing down.
    """
    xy, z = points[:, :2], points[:, 2]
    usable = (xy.abs() <= FARTHEST).all(1) & (z > NEAR) & (z < FAR)  # false for NaN
    fixed = torch.where(usable[:, None], (xy * SUBPIXELS).round(), 0).long()
    inverse = torch.ones_like(z) / z
    corners = fixed[faces]  # [F, 3, 2]
    area = _edge(corners[:, 0], corners[:, 1], corners[:, 2])
    index = torch.nonzero(usable[faces].all(1) & (area != 0)).flatten()
    swapped = torch.where(area[index, None] > 0, faces[index], faces[index][:, [0, 2, 1]])
    return index, fixed[swapped], inverse[swapped]


def _chunks(counts: Tensor) -> list[slice]:
    """Split triangles into runs of at most _PAIRS pixels, or of a single triangle that has more."""
    ends, chunks, start, used = counts.tolist(), [], 0, 0
    for i, count in enumerate(ends):
        if used and used + count > _PAIRS:
            chunks.append(slice(start, i))
            start, used = i, 0
        used += count
    return [*chunks, slice(start, len(ends))]


def _edge(a: Tensor, b: Tensor, p: Tensor) -> Tensor:  # [..., 2] int64 each -> [...]
    """Return twice the signed area of (a, b, p): positive if p is to the right of the edge from a to b."""
    return (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])


def _covered(corners: Tensor, inverse: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pixel centres [P, 2] are covered by their triangles [P, 3, 2], and 1/z there, both [P]."""
    edges, inside = [], torch.ones(len(corners), dtype=torch.bool, device=corners.device)
    for k in range(3):  # edge k lies opposite of corner k
        a, b = corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]
        value = _edge(a, b, centres)
        step = b - a
        owned = (step[:, 1] < 0) | ((step[:, 1] == 0) & (step[:, 0] > 0))  # a left or a top edge
        inside &= (value > 0) | ((value == 0) & owned)
        edges.append(value)
    per_area = 1 / (edges[0] + edges[1] + edges[2]).double()
    depth = torch.zeros_like(per_area)
    for k in range(3):
        share = (edges[k].double() * per_area).float()
        depth = depth + share.double() * inverse[:, k].double()
    return inside, depth.float()


# ----- The compiled op ------------------------------------------------------------------------------------

define("rasterize(Tensor points, Tensor faces, int height, int width) -> Tensor")


@torch.library.register_fake(f"{NAMESPACE}::rasterize", lib=LIBRARY)
def _(points: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    return points.new_empty([points.shape[0], height, width], dtype=torch.int32)

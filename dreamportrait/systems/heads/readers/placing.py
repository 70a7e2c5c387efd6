"""What the readers share: the place of a head in the world of the cameras, its atlas, and a texture to start from."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.core.errors import SnapshotError, listed
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.uv import atlas, dilated

TOP, CHIN, BRIDGE, BOTTOM = 0.209, -0.170, 0.178, -0.480  # of mini/head in the world: heights, and one depth
CHIN_MARK, BROW_MARKS, BRIDGE_MARK, MARKS = 8, slice(17, 27), 27, 68  # among 68 landmarks in their usual order
TEXTURE = 256  # texels along each side, where no texture is given
SKIN, WHITE, GUMS = (0.80, 0.62, 0.52), (0.93, 0.92, 0.90), (0.55, 0.27, 0.27)
_COLOURS = {"teeth": WHITE, "eye": WHITE, "sclera": WHITE, "tongue": GUMS, "gum": GUMS, "mouth": GUMS}


class Place(NamedTuple):
    scale: float
    offset: tuple[float, float, float]


def place(vertices: Array, marks: Array | None) -> Place:  # [V, 3], [68, 3]
    """Return scale and offset that bring a head to where mini/head is: world = scale * vertex + offset.

    With landmarks, the top of the head, the chin and the bridge of the nose come to the same places. Without them, the
    boxes around the meshes do, and a mesh without shoulders appears too large.
    """
    low, high = vertices.min(0), vertices.max(0)
    x, z = (low[0] + high[0]) / 2, (low[2] + high[2]) / 2
    below, world_below, front = float(low[1]), BOTTOM, 0.0
    if marks is not None and len(marks) == MARKS:
        below, world_below, front = float(marks[CHIN_MARK, 1]), CHIN, BRIDGE
        x, z = marks[BRIDGE_MARK, 0], marks[BRIDGE_MARK, 2]
    if not high[1] > below:
        raise SnapshotError("the head has no height along y; its axes must be x to the left ear, y up, z to the front")
    scale = (TOP - world_below) / float(high[1] - below)
    return Place(scale, (float(-scale * x), float(TOP - scale * high[1]), float(front - scale * z)))


def chin_to_brows(marks: Array) -> float:  # [68, 3]
    """Return how far the line from the chin to the middle of the brows leans back, in degrees."""
    line = marks[BROW_MARKS].mean(0) - marks[CHIN_MARK]
    return float(np.degrees(np.arctan2(-line[2], line[1])))


def nod(degrees: float) -> Tensor:  # [3, 3] float64
    """Return the rotation around the axis to the left ear, forwards for positive angles."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)


def pitched(model: HeadModel, degrees: float) -> HeadModel:
    """Return a model whose rest pose is turned forwards, as a nod does. Its place in the world stays what it was.

    A turn R of a joint is Q R Q^T in the new axes. The corrections read the entries of R row by row, so that those of
    the new turns are (Q (x) Q) of the old ones.
    """
    q = nod(degrees).float()

    def turned(x: Tensor | None, axis: int) -> Tensor | None:
        return None if x is None else (x.movedim(axis, -1) @ q.T).movedim(-1, axis).contiguous()

    corrections = turned(model.posedirs, 1)
    if corrections is not None:
        entries = torch.kron(q, q)  # [9, 9]
        corrections = (corrections.unflatten(2, (-1, 9)) @ entries.T).flatten(2)
    vertices, dirs = turned(model.v_template, 1), turned(model.shapedirs, 1)
    assert vertices is not None and dirs is not None
    return replace(
        model,
        v_template=vertices,
        shapedirs=dirs,
        exprdirs=turned(model.exprdirs, 1),
        posedirs=corrections,
        joint_template=turned(model.joint_template, 1),
        joint_dirs=turned(model.joint_dirs, 2),
    )


def marks_of(vertices: Array, faces: Array, mark_faces: Array, shares: Array) -> Array:  # -> [L, 3]
    """Return where landmarks are."""
    found: Array = (vertices[faces[mark_faces]] * shares[..., None]).sum(1)
    return found


class Corners(NamedTuple):
    uv: Tensor  # [U, 2] from the upper left corner, 0 .. 1
    uv_faces: Tensor  # [F, 3]


def packed(corners: Array) -> Corners:  # [F, 3, 2], v upwards; whole numbers select a tile, as in the UDIM convention
    """Return places in one square texture. Several tiles are laid out side by side in it."""
    tile = np.floor(corners.min(1) + 1e-6).astype(np.int64)  # [F, 2]; corners on an upper border belong to the tile
    inside = corners - tile[:, None]
    tiles, which = np.unique(tile, axis=0, return_inverse=True)
    side = int(np.ceil(np.sqrt(len(tiles))))
    if inside.min() < -1e-3 or inside.max() > 1 + 1e-3 or side > 8:
        raise SnapshotError("places in the texture (uv) do not lie in a few square tiles")
    column, row = which.reshape(-1) % side, which.reshape(-1) // side
    u = (inside[..., 0] + column[:, None]) / side
    v = (1 - inside[..., 1] + row[:, None]) / side
    places, index = np.unique(np.stack([u, v], -1).reshape(-1, 2).round(7), axis=0, return_inverse=True)
    return Corners(real(places.clip(0, 1)), torch.from_numpy(index.reshape(-1, 3).astype(np.int64)))


def plain_texture(corners: Corners, parts: Array | None, names: tuple[str, ...]) -> Tensor:  # [3, T, T]
    """Return a texture of flat skin, with other colours for eyes and teeth where parts have such names."""
    texture = torch.tensor(SKIN)[:, None].expand(3, TEXTURE * TEXTURE).clone()
    if parts is None:
        return texture.view(3, TEXTURE, TEXTURE)
    places = atlas(corners.uv, corners.uv_faces, TEXTURE)
    colours = torch.tensor([next((c for w, c in _COLOURS.items() if w in name.lower()), SKIN) for name in names])
    texture[:, places.texels] = colours[torch.from_numpy(parts[places.faces])].T
    texture = texture.view(3, TEXTURE, TEXTURE)
    near = dilated(places.mask[None].float(), places.mask)[0] > 0
    return torch.where(near, dilated(texture, places.mask), torch.tensor(SKIN)[:, None, None])


def real(values: Any) -> Tensor:
    """Return a float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def whole(values: Any) -> Tensor:
    """Return an int64 tensor."""
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.int64))


def check_shapes(where: str, arrays: dict[str, Array], shapes: dict[str, tuple[int | str, ...]]) -> None:
    """Raise SnapshotError with all arrays that have another shape, or hold no finite numbers.

    Letters in shapes stand for numbers that must be the same everywhere.
    """
    sizes: dict[str, int] = {}
    problems = []
    for name, shape in shapes.items():
        found = list(arrays[name].shape)
        if arrays[name].dtype.kind not in "iufb" or not np.isfinite(arrays[name]).all():
            problems.append(f"{name} holds something else than finite numbers")
        elif len(found) != len(shape):
            problems.append(f"{name} has shape {found}, must have {len(shape)} dimensions")
        else:
            pairs = zip(shape, found, strict=True)
            wanted = [sizes.setdefault(size, have) if isinstance(size, str) else size for size, have in pairs]
            if wanted != found:
                problems.append(f"{name} has shape {found}, must be {wanted}")
    if problems:
        raise SnapshotError(f"{where}: {listed(problems, 12)}")

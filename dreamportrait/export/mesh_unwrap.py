"""Texture coordinates for a mesh: six pictures of it, from the front, the back and so on, side by side in a square.

Each face goes to the picture that it faces most, so no face is seen at less than 35 degrees. Faces that are hidden
there by others, such as the neck behind the chin, get patches of their own.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from scipy import ndimage  # type: ignore[import-untyped]

from dreamportrait.export.mesh_surface import parts
from dreamportrait.geometry.raster import rasterise

# Per picture: the direction it is seen from, then the world's direction that is to the right in it and that is down.
SIDES = np.array(
    [
        [[0, 0, 1], [1, 0, 0], [0, -1, 0]],  # front
        [[0, 0, -1], [-1, 0, 0], [0, -1, 0]],  # back
        [[1, 0, 0], [0, 0, -1], [0, -1, 0]],
        [[-1, 0, 0], [0, 0, 1], [0, -1, 0]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 1]],  # top
        [[0, -1, 0], [1, 0, 0], [0, 0, -1]],
    ],
    np.float32,
)
MARGIN = 2  # texels around each patch, so that neighbours do not bleed into it
LAYERS = 4  # of faces behind one another in the same picture
COARSE = 128  # pixels of the pictures in which hidden faces are found


class Atlas(NamedTuple):
    """Texture coordinates of the corners of faces. A vertex on a seam has several."""

    places: Array  # [U, 2] in texels from the upper left corner of the texture
    depth: Array  # [U] distance along the direction that the patch is seen from; smaller is in front
    vertices: Array  # [U] the vertex of the mesh at each place
    faces: Array  # [F, 3] indices of places


def unwrap(positions: Array, normals: Array, faces: Array, size: int) -> Atlas:
    """Lay all faces out in a texture of size x size texels, as large as they fit."""
    seen = normals[faces].sum(1) @ SIDES[:, 0].T  # [F, 6]
    side = seen.argmax(1)
    patch = _patches(positions, faces, side)
    # One entry for each pair of a patch and a vertex in it.
    pairs, corners = np.unique(np.repeat(patch, 3) * len(positions) + faces.ravel(), return_inverse=True)
    patch_of, vertices = np.divmod(pairs, len(positions))
    side_of = np.zeros(patch.max() + 1, np.int64)
    side_of[patch] = side
    spanned = SIDES[side_of[patch_of]]  # [U, 3, 3]
    away, across, down = (spanned * positions[vertices][:, None]).sum(2).T  # [U] each
    flat = np.stack([across, down], 1)
    low = np.full((len(side_of), 2), np.inf)
    high = -low
    np.minimum.at(low, patch_of, flat)
    np.maximum.at(high, patch_of, flat)
    scale, corner = _pack(high - low, size)
    places = (flat - low[patch_of]) * scale + corner[patch_of]
    return Atlas(places.astype(np.float32), -away, vertices, corners.reshape(faces.shape))


def _patches(positions: Array, faces: Array, side: Array) -> Array:  # [F]
    """Return the number of the patch of each face: one for what is in front in a picture, more for what is hidden."""
    patch, count = np.zeros(len(faces), np.int64), 0
    extent = float(np.ptp(positions, axis=0).max())
    for number, (away, across, down) in enumerate(SIDES):
        left = np.flatnonzero(side == number)
        flat = np.stack([positions @ across, positions @ down], 1)
        flat = (flat - flat.min(0)) * ((COARSE - 1) / extent)
        depth = -(positions @ away)
        for layer in range(LAYERS):
            if len(left) == 0:
                break
            hidden = np.zeros(len(left), bool) if layer == LAYERS - 1 else _hidden(flat, depth, faces[left], extent)
            front = left[~hidden]
            if layer == 0:
                patch[front], count = count, count + 1
            elif len(front):  # hidden faces are few and far apart, so each connected group is a patch
                used, local = np.unique(faces[front], return_inverse=True)
                local = local.reshape(-1, 3)
                groups = parts(local, len(used))[local[:, 0]]
                patch[front], count = count + groups, count + groups.max() + 1
            left = left[hidden]
    return np.unique(patch, return_inverse=True)[1]


def _hidden(flat: Array, depth: Array, faces: Array, extent: float) -> Array:  # [F] bool
    """Return which faces have a corner behind other faces, or so near to their edge that they would share texels."""
    drawn = rasterise(flat, depth, faces, (COARSE, COARSE))
    nearest = ndimage.minimum_filter(drawn.depth, 3, mode="nearest")
    x, y = np.floor(flat).astype(np.int64).clip(0, COARSE - 1).T
    # Over the two pixels that this compares, the depth of a face as steep as 55 degrees changes by 2.9 pixels.
    behind: Array = depth > nearest[y, x] + 4 * extent / COARSE
    return behind[faces].any(1)


def _pack(extents: Array, size: int) -> tuple[float, Array]:  # [P, 2] -> texels per unit, upper left corners [P, 2]
    """Place rectangles in rows, the highest first, at the largest scale at which they fit."""
    low, high = 0.0, size / max(float(extents.max()), 1e-12)
    corners = None
    for _ in range(20):
        scale = (low + high) / 2
        found = _rows(np.ceil(extents * scale).astype(np.int64) + 2 * MARGIN, size)
        if found is None:
            high = scale
        else:
            low, corners = scale, found
    if corners is None:
        raise ValueError(f"texture_size={size}: too small for {len(extents)} patches; give a larger size")
    return low, corners + MARGIN


def _rows(sizes: Array, size: int) -> Array | None:
    """Return the corners of rectangles in rows, or None if they do not fit."""
    corners, x, y, height = np.zeros_like(sizes), 0, 0, 0
    for index in np.argsort(-sizes[:, 1], kind="stable"):
        width = sizes[index, 0]
        if x + width > size:
            x, y, height = 0, y + height, 0
        if width > size or y + sizes[index, 1] > size:
            return None
        corners[index] = x, y
        x, height = x + width, max(height, sizes[index, 1])
    return corners

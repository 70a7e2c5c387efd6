"""The surface of a solid as triangles: marching cubes, without floating bits and inner cavities, and normals."""

import numpy as np
from numpy import ndarray as Array
from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]
from skimage.measure import marching_cubes

from dreamportrait.export.mesh_field import Solid

SMALLEST_PART = 0.05  # of the volume of the largest part; smaller parts are floating bits


def surface(solid: Solid) -> tuple[Array, Array]:
    """Return positions [V, 3] in the world's units and faces [F, 3], counter-clockwise from outside, watertight."""
    axes = solid.axes
    pitch = float(axes.x[1] - axes.x[0])
    closed = np.pad(solid.field, 1, constant_values=-pitch)  # closes the surface at the edges of the grid
    zyx, faces, _, _ = marching_cubes(closed, 0.0)
    first = np.array([float(axes.x[0]), float(axes.y[0]), float(axes.z[0])])
    positions = (first + (zyx[:, ::-1] - 1) * pitch).astype(np.float32)
    if signed_volumes(positions, faces).sum() < 0:
        faces = faces[:, ::-1]
    return main_parts(positions, np.ascontiguousarray(faces))


def main_parts(positions: Array, faces: Array) -> tuple[Array, Array]:
    """Keep the largest connected part and those nearly as large. Cavities have a negative volume and go."""
    labels = parts(faces, len(positions))
    volumes = np.bincount(labels[faces[:, 0]], signed_volumes(positions, faces), minlength=labels.max() + 1)
    kept = volumes >= SMALLEST_PART * volumes.max()
    kept[volumes.argmax()] = True
    return compacted(positions, faces[kept[labels[faces[:, 0]]]])


def parts(faces: Array, count: int) -> Array:  # [V]
    """Return the number of the connected part that each of `count` vertices belongs to."""
    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    labels: Array = connected_components(graph, directed=False)[1]
    return labels


def compacted(positions: Array, faces: Array) -> tuple[Array, Array]:
    """Drop the vertices that no face uses."""
    used, renumbered = np.unique(faces, return_inverse=True)
    return positions[used], renumbered.reshape(faces.shape).astype(np.int64)


def signed_volumes(positions: Array, faces: Array) -> Array:  # [F]
    """Return the volume between each face and the origin; the sum over a closed surface is its volume."""
    a, b, c = (positions[faces[:, k]].astype(np.float64) for k in range(3))
    return (a * np.cross(b, c)).sum(1) / 6


def vertex_normals(positions: Array, faces: Array) -> Array:  # [V, 3] float32, of length 1
    """Return the mean normals of the faces around each vertex, weighted by their areas."""
    a, b, c = (positions[faces[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)  # twice the area long
    flat = faces.ravel()
    total = np.stack([np.bincount(flat, np.repeat(normals[:, k], 3), len(positions)) for k in range(3)], 1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    upward = np.array([0.0, 1.0, 0.0])  # a vertex of faces without area: any direction will do
    return np.where(length > 0, total / np.where(length > 0, length, 1), upward).astype(np.float32)

"""Reads GNM Head from its .npz file, gnm_head.npz of version 3 (Apache-2.0, without a gate).

Its jaw is part of the expressions; joints are the neck, the head and the eyes. Corrections for turns of the root have
no place in our equations and are left out; how large they are is noted.
"""

from pathlib import Path

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import SnapshotError
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.readers.flame import Converted
from dreamportrait.systems.heads.readers.npz import read_npz
from dreamportrait.systems.heads.readers.placing import check_shapes, packed, place, plain_texture, real, whole

LICENCE = "GNM Head: Apache-2.0, Google LLC"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "template_vertex_positions": ("V", 3),
    "template_joint_positions": ("K", 3),
    "vertex_identity_basis": ("m", "V", 3),
    "joint_identity_basis": ("m", "K", 3),
    "expression_basis": ("e", "V", 3),
    "skinning_weights": ("K", "V"),
    "joint_parent_indices": ("K",),
    "triangles": ("F", 3),
    "triangle_uvs": ("F", 3, 2),
}
_NAMES = ("joint_names", "expression_names")
_OPTIONAL = ("pose_correctives_regressor", "mesh_component_names", "vertex_groups", "vertex_group_names", "version")


def read_gnm(path: str | Path) -> Converted:
    """Read GNM Head. Arrays of objects, which would be pickles, are refused."""
    path = Path(path)
    arrays = read_npz(path, (*_SHAPES, *_NAMES), _OPTIONAL)
    check_shapes(str(path), arrays, _SHAPES)
    faces = arrays["triangles"].astype(np.int64)
    vertices = arrays["template_vertex_positions"]
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise SnapshotError(f"{path}: triangles name vertices from 0 to {len(vertices) - 1}")
    corners, located = packed(arrays["triangle_uvs"].astype(np.float64)), place(vertices, None)
    parts, part_names = _parts(path, arrays, faces)
    corrections, left_out = _corrections(path, arrays)
    parents = [int(p) for p in arrays["joint_parent_indices"]]
    model = HeadModel(
        name=path.stem,
        licence=LICENCE,
        v_template=real(vertices),
        shapedirs=real(arrays["vertex_identity_basis"].transpose(1, 2, 0)),
        faces=whole(faces),
        exprdirs=real(arrays["expression_basis"].transpose(1, 2, 0)),
        expr_names=tuple(map(str, arrays["expression_names"])),
        posedirs=None if corrections is None else real(corrections),
        joint_names=tuple(map(str, arrays["joint_names"])),
        parents=(-1, *parents[1:]),  # the file may give the root itself as its parent
        weights=real(arrays["skinning_weights"].T),
        joint_template=real(arrays["template_joint_positions"]),
        joint_dirs=real(arrays["joint_identity_basis"]),
        uv=corners.uv,
        uv_faces=corners.uv_faces,
        mean_texture=plain_texture(corners, parts, part_names),
        parts=None if parts is None else whole(parts),
        part_names=part_names,
        scale=located.scale,
        offset=located.offset,
    )
    version = str(arrays["version"]) if "version" in arrays else "unknown"
    return Converted(
        model,
        {
            "source": path.name,
            "version": version,
            "corrections_left_out": round(left_out * model.scale / model.height, 6),
        },
    )


def _corrections(path: Path, arrays: dict[str, Array]) -> tuple[Array | None, float]:
    """Return the corrections [V, 3, 9 (K - 1)] of all joints but the root, and the largest one of the root."""
    given = arrays.get("pose_correctives_regressor")
    if given is None or given.dtype.kind != "f" or not given.size:
        return None, 0.0
    joints, count = len(arrays["template_joint_positions"]), len(arrays["template_vertex_positions"])
    if given.shape != (9 * joints, 3 * count):
        raise SnapshotError(
            f"{path}: pose_correctives_regressor has shape {list(given.shape)}, must be {[9 * joints, 3 * count]}"
        )
    each = given.reshape(9 * joints, count, 3).transpose(1, 2, 0)  # [V, 3, 9K]
    if not np.isfinite(each).all():
        raise SnapshotError(f"{path}: pose_correctives_regressor holds NaN or infinite numbers")
    rest = each[..., 9:]
    return (rest if np.abs(rest).max(initial=0) > 0 else None), float(np.abs(each[..., :9]).max(initial=0))


def _parts(path: Path, arrays: dict[str, Array], faces: Array) -> tuple[Array | None, tuple[str, ...]]:
    """Return the part [F] of each face, and the names of the parts: skin, then the mesh's components."""
    groups, names, wanted = (
        arrays.get(name) for name in ("vertex_groups", "vertex_group_names", "mesh_component_names")
    )
    if groups is None or names is None or wanted is None:
        return None, ()
    if groups.ndim != 2 or groups.shape != (len(names), len(arrays["template_vertex_positions"])):
        raise SnapshotError(f"{path}: vertex_groups has shape {list(groups.shape)}, one row for each name is needed")
    rows = {str(name): row for name, row in zip(names, groups, strict=True)}
    found, used = np.zeros(len(faces), np.int64), ["skin"]
    for name in map(str, wanted):
        inside = (rows[name] > 0.5)[faces].all(1) if name in rows else np.zeros(len(faces), bool)
        if inside.any() and not inside.all():
            used.append(name)
            found[inside] = len(used) - 1
    return found, tuple(used)

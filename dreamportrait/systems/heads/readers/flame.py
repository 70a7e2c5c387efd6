"""Reads FLAME from the files that its users download: generic_model.pkl, flame2023.pkl, flame2023_Open.pkl.

The pickles were written by Python 2, with chumpy and SciPy. They are read without executing anything in them. Places
in a texture come from a template OBJ or FLAME_texture.npz, landmarks from landmark_embedding.npy.

FLAME's own formula moves joints with the shape alone. Common programs also feed the expression to the regressor; how
much that would move joints is noted.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.core.errors import SnapshotError, listed
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.readers.npz import read_npz
from dreamportrait.systems.heads.readers.obj import read_obj
from dreamportrait.systems.heads.readers.placing import (
    MARKS,
    Corners,
    check_shapes,
    chin_to_brows,
    marks_of,
    nod,
    packed,
    pitched,
    place,
    plain_texture,
    real,
    whole,
)
from dreamportrait.weights.pickled_arrays import array_of, read_object_array, read_stand_ins

SHAPES = 300  # the first directions are identity, the rest are expressions
NO_PARENT = 2**32 - 1
JOINTS = ("root", "neck", "jaw", "leftEye", "rightEye")
CLOSED = "FLAME model licence: non-commercial research, no redistribution; see flame.is.tue.mpg.de"
OPEN = "FLAME 2023 Open: CC BY 4.0 with prohibited uses, as you confirmed at download; see flame.is.tue.mpg.de"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "shapedirs": ("V", 3, "shapes"),
    "posedirs": ("V", 3, "corrections"),
    "weights": ("V", "K"),
    "J_regressor": ("K", "V"),
    "kintree_table": (2, "K"),
}


class Converted(NamedTuple):
    model: HeadModel
    notes: dict[str, Any]


def read_flame(
    path: str | Path,
    uv: str | Path | None = None,  # head_template.obj or FLAME_texture.npz
    marks: str | Path | None = None,  # landmark_embedding.npy
    shapes: int = SHAPES,
    rest_pitch: float | Literal["auto"] = 0.0,  # degrees; auto: the line from chin to brows becomes upright
) -> Converted:
    """Read FLAME. Nothing in the files is executed."""
    path = Path(path)
    arrays = _arrays(path)
    faces = arrays["f"].astype(np.int64)
    _check_indices(path, faces, len(arrays["v_template"]))
    corners, texture = _skin(Path(uv), faces) if uv is not None else (None, None)
    landmarks = _landmarks(Path(marks), len(faces)) if marks is not None else None
    at = None if landmarks is None else marks_of(arrays["v_template"], faces, *landmarks)
    degrees = _pitch(at) if rest_pitch == "auto" else rest_pitch
    directions, count = arrays["shapedirs"], min(shapes, arrays["shapedirs"].shape[2])
    expressions = directions[..., count:]
    joints = arrays["J_regressor"].shape[0]
    model = HeadModel(
        name=path.stem,
        licence=OPEN if "open" in path.stem.lower() else CLOSED,
        v_template=real(arrays["v_template"]),
        shapedirs=real(directions[..., :count]),
        faces=whole(faces),
        exprdirs=real(expressions) if expressions.shape[2] else None,
        expr_names=tuple(f"expression{i:03d}" for i in range(expressions.shape[2])),
        posedirs=real(arrays["posedirs"]),
        joint_names=JOINTS if joints == len(JOINTS) else tuple(f"joint{k}" for k in range(joints)),
        parents=_parents(path, arrays["kintree_table"]),
        weights=real(arrays["weights"]),
        joint_regressor=real(arrays["J_regressor"]),
        uv=None if corners is None else corners.uv,
        uv_faces=None if corners is None else corners.uv_faces,
        mean_texture=texture,
        landmark_faces=None if landmarks is None else whole(landmarks[0]),
        landmark_shares=None if landmarks is None else real(landmarks[1]),
    )
    model = pitched(model, degrees) if degrees else model
    located = place(model.v_template.double().numpy(), None if at is None else at @ nod(degrees).numpy().T)
    model = replace(model, scale=located.scale, offset=located.offset)
    moved = np.einsum("kv,vce->kce", arrays["J_regressor"], expressions)
    largest = float(np.sqrt((moved**2).sum(1)).max(initial=0)) * model.scale / model.height
    notes = {"source": path.name, "joints_moved_by_one_expression": round(largest, 5), "rest_pitch": round(degrees, 3)}
    return Converted(model, notes)


def _pitch(marks: Array | None) -> float:
    if marks is None or len(marks) != MARKS:
        raise SnapshotError("the rest pitch is found by the 68 landmarks; name them with --landmarks, or give degrees")
    return chin_to_brows(marks)


def _arrays(path: Path) -> dict[str, Array]:
    values = read_stand_ins(path)
    if type(values) is not dict:
        raise SnapshotError(f"{path} holds a {type(values).__name__}; FLAME's files hold a dict of arrays")
    if missing := [name for name in _SHAPES if name not in values]:
        raise SnapshotError(f"{path} is not FLAME: it lacks {listed(missing, 9)}")
    arrays = {name: array_of(values[name], name) for name in _SHAPES}
    check_shapes(str(path), arrays, _SHAPES)
    return arrays


def _check_indices(path: Path, faces: Array, count: int) -> None:
    if not len(faces) or faces.min() < 0 or faces.max() >= count:
        raise SnapshotError(f"{path}: f names vertices from 0 to {count - 1}, and at least one face is needed")


def _parents(path: Path, table: Array) -> tuple[int, ...]:  # [2, K]: parents and joints
    parents = [-1 if p == NO_PARENT or p == -1 else p for p in table[0].astype(np.int64).tolist()]
    if table[1].tolist() != list(range(table.shape[1])):
        raise SnapshotError(f"{path}: the second row of kintree_table must number the joints")
    return tuple(parents)


def _skin(path: Path, faces: Array) -> tuple[Corners, Tensor]:
    """Return places in a texture and the texture itself, flat skin where the file has none."""
    if path.suffix.lower() == ".obj":
        corners = packed(_matched(path, faces))
        return corners, plain_texture(corners, None, ())
    arrays = read_npz(path, ("vt", "ft", "mean"))
    check_shapes(str(path), arrays, {"vt": ("U", 2), "ft": (len(faces), 3)})
    at = arrays["ft"].astype(np.int64)
    if at.min() < 0 or at.max() >= len(arrays["vt"]):
        raise SnapshotError(f"{path}: ft names places from 0 to {len(arrays['vt']) - 1}")
    return packed(arrays["vt"].astype(np.float64)[at]), _texture(path, arrays["mean"])


def _texture(path: Path, mean: Array) -> Tensor:  # [3, T, T]
    side = int(np.sqrt(mean.size / 3) + 0.5)
    if mean.dtype.kind not in "iuf" or not np.isfinite(mean).all() or 3 * side * side != mean.size:
        raise SnapshotError(f"{path}: mean has shape {list(mean.shape)}, must be square and RGB")
    picture = mean.reshape(side, side, 3).astype(np.float64)
    if picture[..., 0].mean() < picture[..., 2].mean():  # blue comes first in common copies; skin is more red than blue
        picture = picture[..., ::-1]
    return real((picture / 255).clip(0, 1).transpose(2, 0, 1))


def _matched(path: Path, faces: Array) -> Array:  # [F, 3] -> [F, 3, 2]
    """Return the places of the corners of faces, from an OBJ that may have the same faces in another order."""
    found = read_obj(path)
    if found.corners is None:
        raise SnapshotError(f"{path} has no places in a texture (vt)")
    known = {
        tuple(np.roll(face, -turn)): np.roll(corner, -turn, axis=0)
        for face, corner in zip(found.faces.tolist(), found.corners, strict=True)
        for turn in range(3)
    }
    missing = [face for face in map(tuple, faces.tolist()) if face not in known]
    if missing:
        raise SnapshotError(f"{path} lacks {len(missing)} faces of the model, the first is {missing[0]}")
    return np.stack([known[tuple(face)] for face in faces.tolist()])


def _landmarks(path: Path, count: int) -> tuple[Array, Array]:
    """Return faces [L] and shares [L, 3] of all landmarks; of the 51 inner ones if there are no others."""
    values = read_object_array(path) if path.suffix.lower() == ".npy" else read_stand_ins(path)
    pairs = (
        ("full_lmk_faces_idx", "full_lmk_bary_coords"),
        ("static_lmk_faces_idx", "static_lmk_bary_coords"),
        ("lmk_face_idx", "lmk_b_coords"),
    )
    keys = next((pair for pair in pairs if type(values) is dict and all(key in values for key in pair)), None)
    if keys is None or type(values) is not dict:
        raise SnapshotError(f"{path} has none of the fields of landmarks: {', '.join(' with '.join(p) for p in pairs)}")
    faces, shares = array_of(values[keys[0]], keys[0]).reshape(-1), array_of(values[keys[1]], keys[1]).reshape(-1, 3)
    check_shapes(str(path), {keys[0]: faces, keys[1]: shares}, {keys[0]: ("L",), keys[1]: ("L", 3)})
    if faces.min() < 0 or faces.max() >= count or np.abs(shares.sum(1) - 1).max() > 1e-2:
        raise SnapshotError(f"{path}: landmarks must lie in faces 0 to {count - 1}, with shares that sum to 1")
    return faces.astype(np.int64), shares

"""Cameras of pictures that are aligned already, from files of other programs.

dataset.json    EG3D's: {"labels": [[file, [25 numbers]], ...]}, taken as they are
a folder of *.mat or *.npz, named after the pictures:
    Deep3DFaceRecon    `angle` [3] and `trans` [3], converted as EG3D's preparation does
    DECA, FLAME        `pose` [6] or `global_orient` [3]: an axis and angle; the camera then looks at the pivot
"""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import scipy.io  # type: ignore[import-untyped]
from numpy import ndarray as Array

from dreamportrait.core.errors import DataError, listed, shown
from dreamportrait.data.preparation.head import WORLD_OFFSET, WORLD_SCALE
from dreamportrait.data.preparation.layouts import read_labels
from dreamportrait.data.preparation.pose import PIVOT, make_labels

_FROM_Y_UP = np.diag([1.0, -1.0, -1.0])  # axes right, up, back <-> right, down, forward
_DISTANCE = 10.0  # of Deep3DFaceRecon's camera


def read_cameras(path: Path, pictures: list[str]) -> dict[str, Array | str]:
    """Return a camera [25] for each picture, or what is wrong with it."""
    if path.is_dir():
        return _from_folder(path, pictures)
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cameras {path} cannot be read: {error}") from None
    return checked(read_labels(content, str(path)))


def checked(labels: dict[str, Any]) -> dict[str, Array | str]:
    """Return labels as arrays, or what is wrong with them."""
    return {file: _checked(label) for file, label in labels.items()}


def _checked(label: Any) -> Array | str:
    if not isinstance(label, list) or len(label) != 25:
        return f"its label has {len(label) if isinstance(label, list) else 'no'} numbers, not 25"
    if not all(type(value) in (int, float) for value in label):
        return "its label holds something that is no number"
    camera = np.array(label, float)
    return problem_of(camera) or camera


def problem_of(camera: Array) -> str:
    """Return what is wrong with a label [25], or an empty text."""
    if not np.isfinite(camera).all():
        return "its label holds NaN or infinity"
    pose, k = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return "the pose of its label is no rotation"
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-3:
        return "the last row of its pose is not 0 0 0 1"
    if k[0, 0] <= 0 or k[1, 1] <= 0 or not 0 < k[0, 2] < 1 or not 0 < k[1, 2] < 1:
        return "its intrinsics are not divided by the size of the picture"
    if np.abs(k[[1, 2, 2, 2], [0, 0, 1, 2]] - [0, 0, 0, 1]).max() > 1e-3:
        return "its intrinsics are no camera matrix"
    return ""


def _from_folder(folder: Path, pictures: list[str]) -> dict[str, Array | str]:
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".mat", ".npz")}
    if not files:
        raise DataError(f"{folder} holds no .mat or .npz files; name a dataset.json, or a folder with one per picture")
    stems = {name: PurePosixPath(name).stem for name in pictures}
    if twice := [name for name, stem in stems.items() if list(stems.values()).count(stem) > 1]:
        raise DataError(f"pictures {listed(sorted(twice))} have the same name in several folders; rename them")
    return {name: _from_file(files[stem]) if stem in files else "has no pose" for name, stem in stems.items()}


def _from_file(path: Path) -> Array | str:
    try:
        if path.suffix.lower() == ".mat":
            values = scipy.io.loadmat(path)
        else:
            with np.load(path, allow_pickle=False) as archive:
                values = dict(archive)
    except Exception as error:  # damaged files raise many kinds of errors
        return f"its pose cannot be read: {shown(str(error), 60)}"
    if "angle" in values and "trans" in values:
        camera = _deep3d(values["angle"], values["trans"])
    elif "pose" in values or "global_orient" in values:
        camera = _flame(values["pose"] if "pose" in values else values["global_orient"])
    else:
        return "its pose file has neither angle and trans, nor pose, nor global_orient"
    return camera if isinstance(camera, str) else problem_of(camera) or camera


def _deep3d(angle: Any, trans: Any) -> Array | str:
    """Return the camera of Deep3DFaceRecon's coefficients.

    Vertices are turned by R, moved by `trans`, and seen from (0, 0, 10), with R = Rz Ry Rx acting on columns.
    """
    turns, place = np.ravel(angle), np.ravel(trans)
    if len(turns) != 3 or len(place) != 3 or turns.dtype.kind != "f" or place.dtype.kind != "f":
        return "its angle and trans are not three numbers each"
    sines, cosines = np.sin(turns), np.cos(turns)
    rx = np.array([[1, 0, 0], [0, cosines[0], -sines[0]], [0, sines[0], cosines[0]]])
    ry = np.array([[cosines[1], 0, sines[1]], [0, 1, 0], [-sines[1], 0, cosines[1]]])
    rz = np.array([[cosines[2], -sines[2], 0], [sines[2], cosines[2], 0], [0, 0, 1]])
    to_world = (rz @ ry @ rx).T  # of the camera's axes
    centre = to_world @ (np.array([0, 0, _DISTANCE]) - place) * WORLD_SCALE + WORLD_OFFSET
    camera: Array = make_labels((to_world @ _FROM_Y_UP)[None], centre[None])[0]
    return camera


def _flame(pose: Any) -> Array | str:
    """Return the camera of a global rotation of FLAME: the head is turned, seen with y up and z to the viewer."""
    vector = np.ravel(pose)
    if len(vector) not in (3, 6) or vector.dtype.kind != "f":
        return "its pose is not three or six numbers"
    from scipy.spatial.transform import Rotation  # type: ignore[import-untyped]

    to_world = Rotation.from_rotvec(vector[:3]).as_matrix().T @ _FROM_Y_UP
    camera: Array = make_labels(to_world[None], (PIVOT - to_world[:, 2])[None])[0]
    return camera

"""Reads ICT-FaceKit Light (MIT) from a checkout of its repository: OBJ files in the folder FaceXModel.

Its 53 expressions have ARKit's names with _L and _R, and two pairs that are single ones in ARKit. It has no joints; a
rig is derived here. Eyeballs follow their own joints. How a vertex follows the jaw is read off the expression jawOpen:
the lower teeth turn rigidly in it, and a vertex follows as far as its displacement is the one of that turn.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import SnapshotError, listed
from dreamportrait.systems.heads.arkit import NAMES
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.readers.flame import Converted
from dreamportrait.systems.heads.readers.obj import read_obj, read_positions
from dreamportrait.systems.heads.readers.placing import packed, place, plain_texture, real, whole

LICENCE = "ICT-FaceKit Light: MIT, USC Institute for Creative Technologies"
NEUTRAL, FOLDER = "generic_neutral_mesh.obj", "FaceXModel"
PAIRS = ("browInnerUp", "cheekPuff")  # one expression in ARKit, two here
JOINTS, PARENTS = ("root", "neck", "jaw", "leftEye", "rightEye"), (-1, 0, 1, 1, 1)
VERTICES = 26719
# The first polygon of each part, as its README lists them.
PARTS = {
    "skin": 0,
    "mouth": 11144,
    "eye sockets": 13226,
    "gums and tongue": 14034,
    "teeth": 17006,
    "eyes": 21496,
    "lashes and fluid": 24692,
}
LOWER_TEETH, LEFT_EYE, RIGHT_EYE = slice(19247, 21451), slice(21451, 23021), slice(23021, 24591)
# The 68 landmarks that its README lists.
MARKS = [
    *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443),  # jaw
    *(268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509),  # brows
    *(978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360),  # nose
    *(1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732),  # eyes
    *(5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841),  # outer lips
    *(5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),  # inner lips
]


def read_ict(folder: str | Path) -> Converted:
    """Read ICT-FaceKit Light."""
    folder = _folder(Path(folder))
    mesh = read_obj(folder / NEUTRAL)
    neutral, faces = mesh.positions, mesh.faces
    if len(neutral) != VERTICES or mesh.corners is None:
        raise SnapshotError(
            f"{folder / NEUTRAL} has {len(neutral)} vertices, ICT-FaceKit Light has {VERTICES} with places in a texture"
        )
    identities = _moved(sorted(folder.glob("identity[0-9][0-9][0-9].obj")), neutral)
    names, expressions = _expressions(folder, neutral)
    rig = _rig(neutral, identities, expressions[..., names.index("jawOpen")])
    parts = np.searchsorted(list(PARTS.values()), mesh.polygon, side="right") - 1
    corners, part_names = packed(mesh.corners), tuple(PARTS)
    located = place(neutral, neutral[MARKS])
    mark_faces, shares = _at_vertices(faces, MARKS)
    model = HeadModel(
        name="ict-facekit-light",
        licence=LICENCE,
        v_template=real(neutral),
        shapedirs=real(identities),
        faces=whole(faces),
        exprdirs=real(expressions),
        expr_names=tuple(names),
        joint_names=JOINTS,
        parents=PARENTS,
        weights=real(rig.weights),
        joint_template=real(rig.joints),
        joint_dirs=real(rig.dirs),
        uv=corners.uv,
        uv_faces=corners.uv_faces,
        mean_texture=plain_texture(corners, parts, part_names),
        parts=whole(parts),
        part_names=part_names,
        landmark_faces=whole(mark_faces),
        landmark_shares=real(shares),
        scale=located.scale,
        offset=located.offset,
    )
    missing = [name for name in NAMES if name not in names]
    return Converted(model, {"source": folder.name, "missing_expressions": missing, "rig": "derived by DreamPortrait"})


def _folder(folder: Path) -> Path:
    for candidate in (folder, folder / FOLDER):
        if (candidate / NEUTRAL).is_file():
            return candidate
    raise SnapshotError(f"{folder} is no checkout of ICT-FaceKit: it has neither {NEUTRAL} nor {FOLDER}/{NEUTRAL}")


def _moved(paths: list[Path], neutral: Array) -> Array:  # [V, 3, n]
    """Return how each mesh differs from the neutral one."""
    if not paths:
        raise SnapshotError("the folder has no identity000.obj and so on")
    dirs = np.empty((*neutral.shape, len(paths)), np.float32)
    for i, path in enumerate(paths):
        positions = read_positions(path)
        if positions.shape != neutral.shape:
            raise SnapshotError(f"{path} has {len(positions)} vertices, the neutral mesh has {len(neutral)}")
        dirs[..., i] = positions - neutral
    return dirs


def _expressions(folder: Path, neutral: Array) -> tuple[list[str], Array]:
    """Return the expressions in ARKit's names, those of a pair added up."""
    files: dict[str, list[Path]] = {}
    for name in NAMES:
        stem = name.removesuffix("Left").removesuffix("Right")
        sided = {"Left": f"{stem}_L", "Right": f"{stem}_R"}
        side = name[len(stem) :]
        wanted = [f"{name}_L", f"{name}_R"] if name in PAIRS else [name]
        if side and not (folder / f"{name}.obj").is_file():  # jawLeft and mouthLeft have no underscore
            wanted = [sided[side]]
        paths = [folder / f"{word}.obj" for word in wanted]
        if all(path.is_file() for path in paths):
            files[name] = paths
    if absent := [name for name in NAMES if name not in files and name != "tongueOut"]:
        raise SnapshotError(f"{folder} lacks the expressions {listed(absent)}")
    return list(files), np.stack([_moved(paths, neutral).sum(2) for paths in files.values()], -1)


class Rig(NamedTuple):
    weights: Array  # [V, K]
    joints: Array  # [K, 3]
    dirs: Array  # [m, K, 3]


def _rig(neutral: Array, identities: Array, opened: Array) -> Rig:  # [V, 3], [V, 3, m], [V, 3]
    turn, hinge = rigid_turn(neutral[LOWER_TEETH], opened[LOWER_TEETH])
    as_jaw = np.cross(turn, neutral - hinge)
    size = (as_jaw**2).sum(1)
    jaw = ((opened * as_jaw).sum(1) / np.maximum(size, 1e-12 + 1e-3 * size.max())).clip(0, 1)
    low, chin = neutral[:, 1].min(), neutral[MARKS[8], 1]
    t = ((neutral[:, 1] - low) / (0.6 * (chin - low))).clip(0, 1)
    neck = t * t * (3 - 2 * t)  # 0 at the lower border, 1 from above the middle of the neck
    weights = np.zeros((len(neutral), len(JOINTS)))
    for k, eye in ((3, LEFT_EYE), (4, RIGHT_EYE)):
        weights[eye, k] = 1
    free = 1 - weights.sum(1)
    weights[:, 2] = jaw * free
    weights[:, 1], weights[:, 0] = neck * (1 - jaw) * free, (1 - neck) * (1 - jaw) * free
    throat = (neutral[:, 1] < low + 0.5 * (chin - low)).nonzero()[0]
    groups = (throat, throat, np.r_[LOWER_TEETH], np.r_[LEFT_EYE], np.r_[RIGHT_EYE])
    joints = np.stack([neutral[group].mean(0) for group in groups])
    joints[0, 1], joints[2] = low, hinge
    dirs = np.stack([identities[group].mean(0).T for group in groups], 1)  # [m, K, 3]
    return Rig(weights, joints, dirs)


def rigid_turn(points: Array, moved: Array) -> tuple[Array, Array]:  # [P, 3] each -> [3], [3]
    """Return the turn w and a point h on its axis with w x (points - h) nearest to how the points move."""
    centre = points.mean(0)
    x = points - centre
    rows = np.zeros((*x.shape, 6))  # moved = w x x + t, linear in w and t
    for k, unit in enumerate(np.eye(3)):
        rows[..., k] = np.cross(unit, x)
        rows[..., 3 + k] = unit
    solution = np.linalg.lstsq(rows.reshape(-1, 6), moved.reshape(-1).astype(np.float64), rcond=None)[0]
    turn, shift = solution[:3], solution[3:]
    if not (strength := float(turn @ turn)) > 0:
        raise SnapshotError("the expression jawOpen does not turn the lower teeth")
    hinge: Array = centre + np.cross(turn, shift) / strength  # where the shift across the axis is cancelled
    return turn, hinge


def _at_vertices(faces: Array, marks: list[int]) -> tuple[Array, Array]:
    """Return a face for each of these vertices, and the shares that pick its corner."""
    flat = faces.ravel()
    order = np.argsort(flat, kind="stable")
    first = order[np.searchsorted(flat[order], marks)]
    return first // 3, np.eye(3)[first % 3]

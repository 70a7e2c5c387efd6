"""Files with the layouts of FLAME, GNM Head and ICT-FaceKit, around a small head made of a grid."""

import io
import pickle
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hostile_pickles import BUILD, EMPTY_DICT, EMPTY_TUPLE, MARK, NEWOBJ, REDUCE, STOP, name
from numpy import ndarray as Array
from scipy import sparse

JOINTS, SHAPES, EXPRESSIONS = 5, 3, 2


def grid() -> tuple[Array, Array]:
    """Return vertices [12, 3] of a bent sheet, 3 wide and 4 high, and its faces [12, 3]."""
    x, y = np.meshgrid([-1.0, 0, 1], [-2.0, -1, 0, 1])
    vertices = np.stack([x.ravel(), y.ravel(), 1 - 0.3 * x.ravel() ** 2], 1)
    faces = []
    for row in range(3):
        for column in range(2):
            a = 3 * row + column
            faces += [[a, a + 1, a + 3], [a + 3, a + 1, a + 4]]
    return vertices, np.array(faces)


def flame() -> dict[str, Any]:
    """Return the arrays of a FLAME with 3 identities and 2 expressions."""
    vertices, faces = grid()
    rng = np.random.default_rng(0)
    weights = rng.random((len(vertices), JOINTS))
    regressor = rng.random((JOINTS, len(vertices))) * (rng.random((JOINTS, len(vertices))) > 0.6)
    return {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "shapedirs": rng.normal(size=(len(vertices), 3, SHAPES + EXPRESSIONS)) * 0.1,
        "posedirs": np.asfortranarray(rng.normal(size=(len(vertices), 3, 9 * (JOINTS - 1)))),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_style": "lbs",
    }


# A pickle as Python 2 wrote it: byte strings, old module names, chumpy arrays, SciPy's compressed columns.


def old_text(value: str | bytes) -> bytes:
    data = value.encode("latin-1") if isinstance(value, str) else value
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return MARK + b"".join(map(integer, values)) + b"t"


def old_array(array: Array) -> bytes:
    code = array.dtype.str[1:]
    empty = name("numpy.core.multiarray", "_reconstruct")
    empty += MARK + name("numpy", "ndarray") + numbers((0,)) + old_text("b") + b"t" + REDUCE
    kind = name("numpy", "dtype") + MARK + old_text(code) + integer(0) + integer(1) + b"t" + REDUCE
    kind += MARK + integer(3) + old_text("<") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"t" + BUILD
    columns_first = array.flags.f_contiguous and not array.flags.c_contiguous
    raw = array.tobytes("F" if columns_first else "C")
    state = integer(1) + numbers(array.shape) + kind + (b"\x88" if columns_first else b"\x89") + old_text(raw)
    return empty + MARK + state + b"t" + BUILD


def old_dict(items: dict[str, bytes]) -> bytes:
    return EMPTY_DICT + MARK + b"".join(old_text(key) + value for key, value in items.items()) + b"u"


def old_chumpy(array: Array) -> bytes:
    unsaved = name("__builtin__", "set") + b"(]t" + REDUCE
    state = old_dict({"x": old_array(array), "_dirty_vars": unsaved, "_itr": b"N", "_status": old_text("new")})
    return name("chumpy.ch", "Ch") + EMPTY_TUPLE + NEWOBJ + state + BUILD


def old_columns(array: Array) -> bytes:
    csc = sparse.csc_matrix(array)
    parts = {"data": csc.data, "indices": csc.indices, "indptr": csc.indptr}
    items = {key: old_array(value) for key, value in parts.items()} | {"_shape": numbers(array.shape)}
    made = name("copy_reg", "_reconstructor")
    made += MARK + name("scipy.sparse.csc", "csc_matrix") + name("__builtin__", "object") + b"Nt" + REDUCE
    return made + old_dict(items) + BUILD


def old_flame(arrays: dict[str, Any], **changed: bytes) -> bytes:
    """Return the file. `changed`: other bytes for some of its values."""
    items = {key: old_text(value) if isinstance(value, str) else old_array(value) for key, value in arrays.items()}
    items |= {key: old_chumpy(arrays[key]) for key in ("v_template", "shapedirs") if key in arrays}
    items |= {"J_regressor": old_columns(arrays["J_regressor"])} if "J_regressor" in arrays else {}
    return b"\x80\x02" + old_dict(items | changed) + STOP


class Ch:
    def __init__(self, x: Array) -> None:
        self.x = x


@contextmanager
def chumpy() -> Iterator[None]:
    """Pretend that chumpy is installed, for Python's own pickler."""
    modules = {key: ModuleType(key) for key in ("chumpy", "chumpy.ch")}
    modules["chumpy.ch"].Ch = Ch  # type: ignore[attr-defined]
    before, Ch.__module__ = Ch.__module__, "chumpy.ch"
    sys.modules.update(modules)
    try:
        yield
    finally:
        Ch.__module__ = before
        for key in modules:
            del sys.modules[key]


def new_flame(arrays: dict[str, Any], protocol: int) -> bytes:
    """Return the file as today's Python pickles it."""
    values = arrays | {
        "v_template": Ch(arrays["v_template"]),
        "J_regressor": sparse.csc_matrix(arrays["J_regressor"]),
    }
    with chumpy():
        return pickle.dumps(values, protocol)


def landmark_file(faces: Array, shares: Array) -> bytes:
    """Return the content of landmark_embedding.npy: an array that holds a dict."""
    file = io.BytesIO()
    values = {"full_lmk_faces_idx": faces[None], "full_lmk_bary_coords": shares[None]}
    np.save(file, np.array(values, dtype=object), allow_pickle=True)
    return file.getvalue()


def template_obj(vertices: Array, faces: Array) -> str:
    """Return an OBJ with places in a texture, whose faces are in another order and start at other corners."""
    lines = [f"v {x} {y} {z}" for x, y, z in vertices]
    lines += [f"vt {(x + 1) / 2} {(y + 2) / 3}" for x, y, _ in vertices]
    for face in faces[::-1]:
        lines.append("f " + " ".join(f"{i + 1}/{i + 1}" for i in np.roll(face, 1)))
    return "\n".join(lines)


def gnm() -> dict[str, Any]:
    """Return the arrays of a GNM Head with joints neck, head and eyes, whose texture has two tiles."""
    vertices, faces = grid()
    rng = np.random.default_rng(1)
    weights = rng.random((4, len(vertices))).astype(np.float32)
    uv = ((vertices[faces][..., :2] + [1, 2]) / [2, 3]).astype(np.float32)
    uv[6:, :, 0] += 1
    left = (np.arange(len(vertices)) < 6).astype(np.float32)
    corrections = np.zeros((9 * 4, 3 * len(vertices)), np.float32)
    corrections[9:] = rng.normal(size=(27, 3 * len(vertices)))
    return {
        "version": "3.0",
        "template_vertex_positions": vertices.astype(np.float32),
        "template_joint_positions": rng.random((4, 3)).astype(np.float32),
        "vertex_identity_basis": rng.normal(size=(3, len(vertices), 3)).astype(np.float32),
        "joint_identity_basis": rng.normal(size=(3, 4, 3)).astype(np.float32),
        "expression_basis": rng.normal(size=(2, len(vertices), 3)).astype(np.float32),
        "skinning_weights": weights / weights.sum(0),
        "joint_parent_indices": np.array([0, 0, 1, 1], np.int32),
        "joint_names": np.array(["neck", "head", "left_eye", "right_eye"]),
        "expression_names": np.array(["lower_face_region_0", "pupils_0"]),
        "triangles": faces.astype(np.int32),
        "triangle_uvs": uv,
        "pose_correctives_regressor": corrections,
        "mesh_component_names": np.array(["teeth"]),
        "vertex_group_names": np.array(["teeth"]),
        "vertex_groups": left[None],
        "mirror_indices": np.arange(len(vertices)),
    }


def ict_folder(folder: Path, turn: Array, hinge: Array) -> Array:
    """Write a checkout with two identities whose jaw opens by a turn of its lower half; return the vertices."""
    from dreamportrait.systems.heads.arkit import NAMES
    from dreamportrait.systems.heads.readers.ict import PAIRS, VERTICES

    rng = np.random.default_rng(2)
    vertices = rng.uniform(-1, 1, (VERTICES, 3)).round(4) * [7, 16, 8]
    folder.mkdir(parents=True)
    quads = ["f " + " ".join(f"{i + k}/{k + 1}" for k in (0, 1, 2, 3)) for i in range(1, VERTICES - 3)]
    corners = ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]

    def write(stem: str, positions: Array, faces: list[str]) -> None:
        lines = ("v %.6f %.6f %.6f\n" * VERTICES) % tuple(positions.ravel().tolist())  # a third of a loop's time
        (folder / f"{stem}.obj").write_text(lines + "\n".join([*corners, *faces, ""]))

    write("generic_neutral_mesh", vertices, quads)
    for i in range(2):
        write(f"identity{i:03d}", vertices + 0.1 * (i + 1), [])
    opened = np.cross(turn, vertices - hinge) * (vertices[:, 1:2] < 0)
    opened[19247:21451] = np.cross(turn, vertices[19247:21451] - hinge)
    for key in NAMES:
        stem = key.removesuffix("Left").removesuffix("Right")
        side = key[len(stem) :]
        names = [f"{key}_L", f"{key}_R"] if key in PAIRS else [f"{stem}_{side[0]}" if side else key]
        if stem in ("jaw", "mouth"):
            names = [key]
        for stem_of_file in names if key != "tongueOut" else []:
            shift = opened if key == "jawOpen" else np.zeros(3)
            write(stem_of_file, vertices + shift + (0.25 if key == "cheekPuff" else 0), [])
    return vertices

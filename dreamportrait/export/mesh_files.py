"""Meshes, and their files: GLB with a texture or vertex colours, PLY with vertex colours, OBJ with a texture."""

import io
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array
from PIL import Image

from dreamportrait import __version__
from dreamportrait.core.files import check_free_file
from dreamportrait.export.glb import Glb

SUFFIXES = (".glb", ".ply", ".obj")
Extras = Mapping[str, Any] | None


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture, and where the corners of the faces lie in it. A vertex on a seam lies at several places."""

    pixels: Array  # [T, T, 3] uint8, sRGB
    uv: Array  # [U, 2] float32 from the upper left corner, 0 .. 1
    vertices: Array  # [U] the vertex of the mesh that each place belongs to
    faces: Array  # [F, 3] indices of places, in the order of the mesh's faces


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed triangle mesh in metres: y is up, the face looks along +z, the origin is the middle of the head."""

    positions: Array  # [V, 3] float32
    normals: Array  # [V, 3] float32, of length 1
    faces: Array  # [F, 3] counter-clockwise from outside
    colors: Array  # [V, 3] uint8, sRGB
    texture: Texture | None  # None = only the vertices have colours
    level: float  # density at the surface, per unit of the world

    def save(self, path: str | Path, overwrite: bool = False, extras: Extras = None) -> None:
        """Write .glb, .ply (vertex colours), or .obj with .mtl and .png beside it.

        `extras`: statements about the origin. A GLB holds them as `asset.extras`, the others as comments.
        """
        save_mesh(self, path, overwrite, extras)

    def __repr__(self) -> str:
        size = "no texture" if self.texture is None else f"texture of {self.texture.pixels.shape[0]} pixels"
        return f"Mesh({len(self.positions)} vertices, {len(self.faces)} faces, {size})"


def check_mesh_target(path: str | Path, overwrite: bool = False) -> Path:
    """Raise an error unless a mesh may be written to `path`; return the path. An OBJ has files beside it."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    for each in companions(path):
        check_free_file(each, overwrite)
    return path


def companions(path: Path) -> tuple[Path, ...]:
    """Return all files that a mesh named `path` consists of; the named one is the last."""
    if path.suffix.lower() == ".obj":
        return path.with_suffix(".png"), path.with_suffix(".mtl"), path
    return (path,)


def save_mesh(mesh: Mesh, path: str | Path, overwrite: bool = False, extras: Extras = None) -> None:
    """Write a mesh in the format of the suffix. `extras`: statements about its origin, stored in the file."""
    path = check_mesh_target(path, overwrite)
    if path.suffix.lower() == ".obj":
        contents = _obj(mesh, path, extras)
    else:
        contents = [(_glb if path.suffix.lower() == ".glb" else _ply)(mesh, extras)]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_all(companions(path), contents)


def _write_all(paths: tuple[Path, ...], contents: list[bytes | None]) -> None:
    """Write all files under temporary names and rename them at the end. None = there is no such file."""
    pairs = [(path, content) for path, content in zip(paths, contents, strict=True) if content is not None]
    unfinished = [path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}") for path, _ in pairs]
    try:
        for temporary, (_, content) in zip(unfinished, pairs, strict=True):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, (path, _) in zip(unfinished, pairs, strict=True):
            os.replace(temporary, path)
    finally:
        for temporary in unfinished:
            temporary.unlink(missing_ok=True)


def _glb(mesh: Mesh, extras: Extras) -> bytes:
    glb = Glb(None if extras is None else dict(extras))
    texture = mesh.texture
    if texture is None:
        material = glb.add_material()
        glb.add_mesh(
            "head",
            positions=mesh.positions,
            normals=mesh.normals,
            faces=mesh.faces,
            colors=mesh.colors,
            material=material,
        )
    else:
        material = glb.add_material(_png(texture))
        glb.add_mesh(
            "head",
            positions=mesh.positions[texture.vertices],
            normals=mesh.normals[texture.vertices],
            faces=texture.faces,
            uv=texture.uv,
            material=material,
        )
    return glb.to_bytes()


def _png(texture: Texture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(texture.pixels).save(file, "PNG")
    return file.getvalue()


def _comments(extras: Extras) -> list[str]:
    """Return lines for formats that have only comments."""
    lines = [f"made by DreamPortrait {__version__}; y is up, the face looks along +z, lengths are metres"]
    for key, value in (extras or {}).items():
        lines.append(f"{key}: {json.dumps(value)}")
    return lines


def _ply(mesh: Mesh, extras: Extras) -> bytes:
    """Return a binary PLY with normals and vertex colours."""
    vertex = np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
    vertices = np.zeros(len(mesh.positions), vertex)
    vertices["position"], vertices["normal"], vertices["color"] = mesh.positions, mesh.normals, mesh.colors
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in _comments(extras))]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    text = "".join(f"{line}\n" for line in header).encode("ascii", "backslashreplace")
    return text + vertices.tobytes() + faces.tobytes()


def _obj(mesh: Mesh, path: Path, extras: Extras) -> list[bytes | None]:
    """Return texture, material and OBJ. Without a texture, vertices carry their colours, which most programs read."""
    texture, notes = mesh.texture, [f"# {line}" for line in _comments(extras)]
    material = [*notes, "newmtl skin", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    lines = [*notes, f"mtllib {path.stem}.mtl", "o head"]
    corner = mesh.faces + 1
    if texture is None:
        rows = np.concatenate([mesh.positions, mesh.colors / 255], 1)
        lines += _rows("v %.6f %.6f %.6f %.4f %.4f %.4f", rows)
        faces = np.repeat(corner, 2, axis=1)
        pattern = "f %d//%d %d//%d %d//%d"
    else:
        material.append(f"map_Kd {path.stem}.png")
        lines += _rows("v %.6f %.6f %.6f", mesh.positions)
        lines += _rows("vt %.6f %.6f", texture.uv * [1, -1] + [0, 1])  # OBJ counts v from below
        faces = np.stack([corner, texture.faces + 1, corner], 2).reshape(len(corner), 9)
        pattern = "f %d/%d/%d %d/%d/%d %d/%d/%d"
    lines += _rows("vn %.4f %.4f %.4f", mesh.normals)
    lines += ["usemtl skin", *_rows(pattern, faces)]
    png = None if texture is None else _png(texture)
    return [png, *("\n".join(each).encode("ascii", "backslashreplace") + b"\n" for each in (material, lines))]


def _rows(pattern: str, rows: Array) -> list[str]:
    return [pattern % tuple(row) for row in rows.tolist()]

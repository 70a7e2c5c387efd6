"""Tests of mesh files: each format is read back, and nothing is left half-written."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamportrait.export import mesh_files
from dreamportrait.export.mesh import Mesh, Texture

POSITIONS = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)


def pyramid(textured: bool = True) -> Mesh:
    """Return a closed mesh in which vertex 0 has two places in the texture."""
    normals = np.tile(np.array([0, 0, 1], np.float32), (4, 1))
    uv = np.array([[0, 0], [1, 0], [0, 0.25], [0.5, 0.5], [1, 1]], np.float32)
    faces = np.array([[0, 2, 1], [4, 1, 3], [4, 3, 2], [1, 2, 3]])
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    texture = Texture(pixels, uv, np.array([0, 1, 2, 3, 0]), faces) if textured else None
    return Mesh(POSITIONS, normals, FACES, COLORS, texture, 10.0)


def test_ply(tmp_path: Path) -> None:
    path = tmp_path / "new" / "head.ply"
    pyramid().save(path, extras={"provenance": {"prompt": "a\nb \N{SNOWMAN}"}})
    header, _, rest = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert 'comment provenance: {"prompt": "a\\nb \\u2603"}' in lines
    assert "element vertex 4" in lines and "element face 4" in lines
    vertices = np.frombuffer(rest, [("floats", "<f4", 6), ("color", "u1", 3)], 4)
    assert np.array_equal(vertices["floats"][:, :3], POSITIONS) and np.array_equal(vertices["color"], COLORS)
    faces = np.frombuffer(rest[4 * 27 :], [("count", "u1"), ("corners", "<i4", 3)])
    assert (faces["count"] == 3).all() and np.array_equal(faces["corners"], FACES)


def test_obj_with_a_texture(tmp_path: Path) -> None:
    pyramid().save(tmp_path / "head.obj", extras={"provenance": "AI"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.mtl", "head.obj", "head.png"]
    lines = (tmp_path / "head.obj").read_text().splitlines()
    rows = {kind: [line.split()[1:] for line in lines if line.split()[0] == kind] for kind in ("v", "vt", "vn", "f")}
    assert np.allclose(np.array(rows["v"], float), POSITIONS)
    assert rows["vt"][2] == ["0.000000", "0.750000"]  # counted from below
    corners = np.array([[corner.split("/") for corner in row] for row in rows["f"]], int) - 1  # [F, 3, (v, vt, vn)]
    assert np.array_equal(corners[..., 0], FACES) and np.array_equal(corners[..., 0], corners[..., 2])
    assert corners[1, 0].tolist() == [0, 4, 0]  # the other place of vertex 0
    assert "mtllib head.mtl" in lines and "usemtl skin" in lines and '# provenance: "AI"' in lines
    assert "map_Kd head.png" in (tmp_path / "head.mtl").read_text().splitlines()
    with Image.open(tmp_path / "head.png") as picture:
        assert np.array_equal(np.asarray(picture), pyramid().texture.pixels)  # type: ignore[union-attr]


def test_obj_with_colours_at_the_vertices(tmp_path: Path) -> None:
    pyramid(textured=False).save(tmp_path / "head.obj")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.mtl", "head.obj"]
    lines = (tmp_path / "head.obj").read_text().splitlines()
    assert "v 0.100000 0.000000 0.000000 0.0000 1.0000 0.0000" in lines and "f 1//1 3//3 2//2" in lines


def test_glb(tmp_path: Path) -> None:
    for textured, key in ((True, "TEXCOORD_0"), (False, "COLOR_0")):
        pyramid(textured).save(tmp_path / f"{key}.GLB")
        content = (tmp_path / f"{key}.GLB").read_bytes()
        assert content[:4] == b"glTF" and key.encode() in content and (b"image/png" in content) == textured


@pytest.mark.parametrize("name", ["head.glb", "head.ply", "head.obj"])
def test_nothing_is_overwritten_unasked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=f"{name} exists; name another file, or allow overwriting"):
        pyramid().save(tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
    pyramid().save(tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_the_companions_of_an_obj_are_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "head.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="head.png exists"):
        pyramid().save(tmp_path / "head.obj")
    assert list(tmp_path.iterdir()) == [tmp_path / "head.png"]


def test_targets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"head\.stl: must end in one of \.glb, \.ply, \.obj"):
        pyramid().save(tmp_path / "head.stl")
    (tmp_path / "head.glb").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        pyramid().save(tmp_path / "head.glb", overwrite=True)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "head.obj").write_bytes(b"mine")
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:  # the last of the three files
            raise OSError("no space left")

    monkeypatch.setattr(mesh_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        pyramid().save(tmp_path / "head.obj", overwrite=True)
    assert os.listdir(tmp_path) == ["head.obj"] and (tmp_path / "head.obj").read_bytes() == b"mine"

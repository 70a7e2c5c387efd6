"""Tests of the GLB writer: the layout of the file, read by hand, and the validator of Khronos if it is installed."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from npm_tools import validated

from dreamportrait import __version__
from dreamportrait.export.glb import Glb, linear

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]], np.float32)
NORMALS = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
FACES = np.array([[0, 1, 2]])


def triangle(extras: dict | None = None) -> Glb:
    glb = Glb(extras)
    colors = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 10]], np.uint8)
    glb.add_mesh(
        "triangle", positions=TRIANGLE, normals=NORMALS, faces=FACES, colors=colors, material=glb.add_material()
    )
    return glb


def read(content: bytes) -> tuple[dict, bytes]:
    """Return the JSON and the binary data of a GLB file, after checking its headers."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    if len(content) == 20 + size:
        return document, b""
    rest, kind = struct.unpack_from("<I4s", content, 20 + size)
    assert kind == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == len(content)
    return document, content[28 + size :]


def values(document: dict, binary: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    assert view["byteOffset"] % 4 == 0
    return np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)


def test_a_triangle() -> None:
    document, binary = read(triangle().to_bytes())
    assert document["asset"] == {"version": "2.0", "generator": f"DreamPortrait {__version__}"}
    assert document["buffers"][0]["byteLength"] == len(binary)
    assert document["scenes"][document["scene"]]["nodes"] == [0] and document["nodes"][0]["mesh"] == 0
    (primitive,) = document["meshes"][0]["primitives"]
    place = primitive["attributes"]["POSITION"]
    assert np.array_equal(values(document, binary, place), TRIANGLE)
    assert document["accessors"][place]["min"] == [0, 0, 0] and document["accessors"][place]["max"] == [1, 1, 0.5]
    assert values(document, binary, primitive["indices"]).ravel().tolist() == [0, 1, 2]
    color = primitive["attributes"]["COLOR_0"]
    assert document["accessors"][color]["normalized"] and document["accessors"][color]["type"] == "VEC4"
    assert values(document, binary, color)[0].tolist() == [65535, 0, 0, 65535]
    assert document["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


def test_colours_of_vertices_are_linear() -> None:
    found = linear(np.array([[0, 10, 188]], np.uint8))[0] / 65535
    # 10/255 lies on the straight part of sRGB; 188 is the grey that looks half as bright as white.
    assert np.allclose(found, [0, 10 / 255 / 12.92, 0.5029, 1], atol=1e-4)


def test_statements_about_the_origin() -> None:
    extras = {"provenance": {"model": "mini", "prompt": "Grüße \N{GRINNING FACE}"}}
    document, _ = read(triangle(extras).to_bytes())
    assert document["asset"]["extras"] == extras


def test_a_texture_and_wide_indices() -> None:
    glb, count = Glb(), 65_537
    positions = np.random.default_rng(0).normal(size=(count, 3))
    uv = np.zeros((count, 2))
    normals = np.tile([0, 0, 1.0], (count, 1))
    faces = np.array([[0, 1, count - 1]])
    png = b"\x89PNG and five more"
    glb.add_mesh(
        "head", positions=positions, normals=normals, faces=faces, uv=uv, material=glb.add_material(texture=png)
    )
    document, binary = read(glb.to_bytes())
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    assert binary[view["byteOffset"] :][: view["byteLength"]] == png and "target" not in view
    primitive = document["meshes"][0]["primitives"][0]
    assert values(document, binary, primitive["indices"]).ravel().tolist() == [0, 1, count - 1]
    material = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert document["textures"][material["baseColorTexture"]["index"]] == {"source": 0, "sampler": 0}


def test_several_meshes_in_one_scene() -> None:
    glb = triangle()
    glb.add_mesh("second", positions=TRIANGLE + 1, normals=NORMALS, faces=FACES, material=0)
    document, _ = read(glb.to_bytes())
    assert [node["name"] for node in document["nodes"]] == ["triangle", "second"]
    assert document["scenes"] == [{"nodes": [0, 1]}]


def test_arrays_that_gltf_does_not_have() -> None:
    with pytest.raises(TypeError, match="an array of float64 with 3 columns: glTF has uint8, uint16"):
        Glb().add_array(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="with 5 columns"):
        Glb().add_array(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match=r"uint8 \[2, 3\] has rows of 3 bytes; 4 must divide them"):
        Glb().add_array(np.zeros((2, 3), np.uint8))


@pytest.mark.slow
def test_the_validator_of_khronos_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "triangle.glb"
    path.write_bytes(triangle({"made by": "AI"}).to_bytes())
    assert validated(path) == f"{path}: 0 errors, 0 warnings, 0 infos\n"

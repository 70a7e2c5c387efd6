"""Tests of heads in GLB files: read back by hand, and by the validator of Khronos and three.js where installed."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from npm_tools import posed_by_three, validated
from numpy import ndarray as Array
from small_heads import arm, wall

from dreamportrait.export.glb import Glb
from dreamportrait.export.mesh import METRES
from dreamportrait.export.provenance import verify
from dreamportrait.export.rigged_glb import quaternions, strongest
from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.glb import glb_of, save_glb
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import posed, rodrigues, to_world

TURNS = {"neck": (0.1, 0.4, -0.1), "jaw": (0.25, 0.0, 0.0)}
SHAPES = {"jawOpen": 0.6, "eyeBlinkLeft": 1.0}


def plain(model: HeadModel, **fields: Any) -> Head:
    assert model.mean_texture is not None
    return Head(model, torch.zeros(model.num_shapes), model.mean_texture, **fields)


@pytest.fixture(scope="module")
def miniature() -> Head:
    return plain(from_pretrained("mini/head"), seed=7)


class Read:
    """A GLB file and its arrays."""

    def __init__(self, content: bytes) -> None:
        size = struct.unpack_from("<I", content, 12)[0]
        self.document, self.binary = json.loads(content[20 : 20 + size]), content[28 + size :]

    def view(self, index: int, kind: int, width: int, count: int) -> Array:
        view = self.document["bufferViews"][index]
        dtype = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[kind]
        assert view["byteOffset"] % 4 == 0
        return np.frombuffer(self.binary, dtype, count * width, view["byteOffset"]).reshape(count, width)

    def array(self, index: int) -> Array:
        entry = self.document["accessors"][index]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
        if "bufferView" in entry:
            return self.view(entry["bufferView"], entry["componentType"], width, entry["count"])
        values = np.zeros((entry["count"], width), np.float32)
        if sparse := entry.get("sparse"):
            rows = self.view(sparse["indices"]["bufferView"], sparse["indices"]["componentType"], 1, sparse["count"])
            values[rows.ravel()] = self.view(sparse["values"]["bufferView"], 5126, width, sparse["count"])
        return values


def moved(file: Read, shapes: dict[str, float], turns: dict[str, tuple[float, ...]]) -> Array:
    """Pose a file as glTF says: blend shapes, then the joints from the root to the leaves."""
    mesh = file.document["meshes"][0]
    first = mesh["primitives"][0]
    points = file.array(first["attributes"]["POSITION"]).astype(float)
    for name, value in shapes.items():
        target = first["targets"][mesh["extras"]["targetNames"].index(name)]
        points = points + value * file.array(target["POSITION"])
    skin = file.document["skins"][0]
    binds = file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    nodes, world = file.document["nodes"], {}
    parents = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
    for joint in skin["joints"]:
        own = np.eye(4)
        own[:3, 3] = nodes[joint]["translation"]
        turn = torch.tensor(turns.get(nodes[joint]["name"], (0.0, 0, 0)), dtype=torch.float64)
        own[:3, :3] = rodrigues(turn).numpy()
        world[joint] = world[parents[joint]] @ own if joint in parents else own
    moves = np.stack([world[joint] @ bind for joint, bind in zip(skin["joints"], binds, strict=True)])
    indices, weights = (file.array(first["attributes"][name]) for name in ("JOINTS_0", "WEIGHTS_0"))
    mixed = (moves[indices] * weights[..., None, None]).sum(1)
    found: Array = np.einsum("vij,vj->vi", mixed, np.pad(points, ((0, 0), (0, 1)), constant_values=1))[:, :3]
    return found


def expected(head: Head, shapes: dict[str, float], turns: dict[str, tuple[float, ...]]) -> Array:
    """Return the vertices of our equations, without posedirs, in metres, in the order of the file."""
    model = head.model
    psi, theta = torch.zeros(1, model.num_expressions), torch.zeros(1, model.num_joints, 3)
    for name, value in shapes.items():
        psi[0, model.expression(name)] = value
    for name, turn in turns.items():
        theta[0, model.joint(name)] = torch.tensor(turn)
    points = to_world(model, posed(model, head.beta[None], psi, theta, corrections=False))[0] * METRES
    assert model.uv_faces is not None
    pairs = torch.stack([model.faces.flatten(), model.uv_faces.flatten()], 1).unique(dim=0)
    return points[pairs[:, 0]].double().numpy()


def test_an_arm_is_stored_as_it_is() -> None:
    model = arm(parts=torch.tensor([0, 1]), part_names=("upper", "lower"))
    content, lost = glb_of(plain(model))
    file = Read(content)
    assert lost == 0
    assert [node["name"] for node in file.document["nodes"]] == ["root", "elbow", "head"]
    assert file.document["nodes"][0] == {
        "name": "root",
        "translation": [0, 0, 0],
        "rotation": [0, 0, 0, 1],
        "children": [1],
    }
    assert file.document["nodes"][1]["translation"] == [METRES, 0, 0]
    assert file.document["scenes"][0]["nodes"] == [0, 2]
    assert [material["name"] for material in file.document["materials"]] == ["upper", "lower"]
    assert "extensionsUsed" not in file.document  # viewers light it: the texture contains no light
    assert file.document["meshes"][0]["extras"]["targetNames"] == ["grow"]
    assert file.document["meshes"][0]["weights"] == [0]
    (target,) = file.document["meshes"][0]["primitives"][0]["targets"]
    assert "sparse" in file.document["accessors"][target["POSITION"]]  # one of six vertices moves
    assert file.array(target["POSITION"]).sum() == pytest.approx(3 * METRES)


def test_it_moves_as_our_equations_say(miniature: Head) -> None:
    file = Read(glb_of(miniature)[0])
    for shapes, turns in (({}, {}), (SHAPES, {}), ({}, TURNS), (SHAPES, TURNS)):
        # 1e-4 of the height of the head is the limit; float32 and normalised weights give 1e-6.
        difference = np.abs(moved(file, shapes, turns) - expected(miniature, shapes, turns)).max()
        assert difference < 1e-6 * miniature.model.height * METRES * 10


def test_a_posed_head_is_stored_with_its_pose() -> None:
    document = Read(glb_of(plain(arm()).posed(grow=0.25, elbow=(0, 0, 90)))[0]).document
    assert document["meshes"][0]["weights"] == [0.25]
    assert document["nodes"][1]["rotation"] == pytest.approx([0, 0, math.sqrt(0.5), math.sqrt(0.5)])


def test_tracks() -> None:
    times = np.array([0.0, 0.5, 2.0])
    track = Track(times, {"grow": np.array([0.0, 1, 0.5])}, {"elbow": np.array([[0, 0, 0.0], [0, 0, 1], [0, 0, 3]])})
    file = Read(glb_of(plain(arm()), track)[0])
    (animation,) = file.document["animations"]
    paths = [(channel["target"]["node"], channel["target"]["path"]) for channel in animation["channels"]]
    assert paths == [(2, "weights"), (1, "rotation")]
    assert file.array(animation["samplers"][0]["input"]).ravel().tolist() == [0, 0.5, 2]
    assert file.array(animation["samplers"][0]["output"]).ravel().tolist() == [0, 1, 0.5]
    turned = file.array(animation["samplers"][1]["output"])
    np.testing.assert_allclose(turned[2], [0, 0, math.sin(1.5), math.cos(1.5)], atol=1e-6)


def test_only_used_expressions(miniature: Head) -> None:
    track = Track(np.array([0.0, 1.0]), {"jawOpen": np.array([0.0, 1.0])})
    document = Read(glb_of(miniature.posed(cheekPuff=0.5), track, only_used=True)[0]).document
    assert document["meshes"][0]["extras"]["targetNames"] == ["jawOpen", "cheekPuff"]
    assert document["meshes"][0]["weights"] == [0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": np.array([0.0, 1.0, 1.0])}, r"row 2 is at 1.0 after 1.0"),
        ({"times": np.array([0.0, np.nan])}, "finite numbers of seconds"),
        ({"times": np.zeros(0)}, "finite numbers of seconds"),
        ({"times": np.array([0.0, 1]), "weights": {"a": np.zeros(3)}}, r"a: the track has values of shape \[3\]"),
        ({"times": np.array([0.0, 1]), "weights": {"a": np.array([0, np.inf])}}, "the first in row 1"),
        ({"times": np.array([0.0, 1]), "rotations": {"a": np.zeros((2, 4))}}, r"must be \[2, 3\]"),
    ],
)
def test_wrong_tracks_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Track(**arguments)


def test_tracks_of_other_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown expression 'grown'; the nearest are grow"):
        glb_of(plain(arm()), Track(np.array([0.0]), {"grown": np.array([0.0])}))


def test_files(tmp_path: Path, miniature: Head) -> None:
    path = tmp_path / "head.glb"
    assert save_glb(miniature, path) == 0
    claim = verify(path)
    assert claim is not None
    assert claim.model == "head"
    assert Read(path.read_bytes()).document["asset"]["copyright"] == "Apache-2.0"
    with pytest.raises(FileExistsError):
        save_glb(miniature, path)
    with pytest.raises(ValueError, match="must end in .glb"):
        save_glb(miniature, tmp_path / "head.fbx")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["head.glb"]


def test_heads_without_a_rig_or_without_places() -> None:
    model = wall()
    document = Read(glb_of(plain(model))[0]).document
    assert "skins" not in document
    assert "targets" not in document["meshes"][0]["primitives"][0]
    with pytest.raises(ValueError, match="has no places in a texture"):
        glb_of(plain(wall(uv=None, uv_faces=None)))


def test_four_joints_are_kept() -> None:
    weights = np.array([[0.4, 0.3, 0.2, 0.06, 0.04], [0, 0, 0, 0, 1.0]])
    indices, kept, lost = strongest(weights)
    assert lost == pytest.approx(0.04)
    np.testing.assert_allclose(kept, [[0.4 / 0.96, 0.3 / 0.96, 0.2 / 0.96, 0.06 / 0.96], [1, 0, 0, 0]], rtol=1e-6)
    assert indices.tolist() == [[0, 1, 2, 3], [4, 0, 0, 0]]
    assert strongest(np.array([[0.5, 0.5]]))[1].tolist() == [[0.5, 0.5, 0, 0]]


def test_quaternions() -> None:
    found = quaternions(np.array([[0.0, 0, 0], [0, math.pi, 0], [math.pi / 2, 0, 0]]))
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found, [[0, 0, 0, 1], [0, 1, 0, 0], [half, 0, 0, half]], atol=1e-12)


def test_displacements_are_sparse_only_where_few_move() -> None:
    glb = Glb()
    for count in (0, 3, 4, 10):
        values = np.zeros((10, 3))
        values[:count] = 0.5
        glb.add_displacements(values)
    kinds = ["sparse" if "sparse" in e else "dense" if "bufferView" in e else "zero" for e in glb.document["accessors"]]
    assert kinds == ["zero", "sparse", "dense", "dense"]


def test_another_reader_finds_names_and_counts(tmp_path: Path, miniature: Head) -> None:
    pygltflib = pytest.importorskip("pygltflib", reason="pygltflib, an independent reader, is not installed")
    times = np.linspace(0, 1, 5)
    track = Track(times, {"jawOpen": times}, {"neck": np.stack([0 * times, times, 0 * times], 1)})
    save_glb(miniature, tmp_path / "animated.glb", track=track)
    file = pygltflib.GLTF2().load(str(tmp_path / "animated.glb"))
    (mesh,), model = file.meshes, miniature.model
    assert mesh.extras["targetNames"] == list(model.expr_names)
    assert mesh.weights == [0.0] * 52
    assert [len(primitive.targets) for primitive in mesh.primitives] == [52] * 4
    assert [material.name for material in file.materials] == list(model.part_names)
    assert tuple(file.nodes[joint].name for joint in file.skins[0].joints) == model.joint_names
    assert sum(file.accessors[primitive.indices].count for primitive in mesh.primitives) == 3 * len(model.faces)
    (animation,) = file.animations
    assert [channel.target.path for channel in animation.channels] == ["weights", "rotation"]
    assert file.accessors[animation.samplers[0].output].count == 5 * 52


@pytest.mark.slow
def test_the_validator_of_khronos_has_nothing_to_say(tmp_path: Path, miniature: Head) -> None:
    times = np.linspace(0, 1, 5)
    track = Track(times, {"jawOpen": times}, {"neck": np.stack([0 * times, times, 0 * times], 1)})
    save_glb(miniature, tmp_path / "animated.glb", track=track)
    save_glb(plain(arm()), tmp_path / "arm.glb")
    save_glb(miniature, tmp_path / "used.glb", only_used=True)
    said = validated(tmp_path / "animated.glb", tmp_path / "arm.glb", tmp_path / "used.glb")
    assert said.count("0 errors, 0 warnings, 0 infos") == 3


@pytest.mark.slow
def test_three_js_poses_it_as_our_equations_say(tmp_path: Path, miniature: Head) -> None:
    times = np.linspace(0, 1, 5)
    track = Track(
        times, {"jawOpen": 0.6 * times, "eyeBlinkLeft": times}, {name: np.outer(times, t) for name, t in TURNS.items()}
    )
    save_glb(miniature, tmp_path / "head.glb", track=track)
    joints = {name: quaternions(np.array(turn)).tolist() for name, turn in TURNS.items()}
    limit = 1e-4 * miniature.model.height * METRES
    for pose in ({"weights": SHAPES, "joints": joints}, {"time": 0.9999}):
        points, _ = posed_by_three(tmp_path / "head.glb", pose)
        # The last moment of the animation is the pose itself; 0.9999 is before its end, where a loop would start again.
        tolerance = limit if "weights" in pose else 20 * limit
        assert np.abs(np.array(points) - expected(miniature, SHAPES, TURNS)).max() < tolerance

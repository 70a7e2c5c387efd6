"""Adds meshes with blend shapes, a skeleton and animations to a GLB.

    rig = add_rigged_mesh(glb, "head", mesh)
    add_animation(glb, rig, times, weights, rotations)

glTF first adds the weighted displacements of the blend shapes to the vertices, then moves them with the joints. Viewers
are only required to add up eight blend shapes at a time; most have no such limit.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray as Array

from dreamportrait.export.glb import ELEMENT_ARRAY_BUFFER, Glb

INFLUENCES = 4  # joints that a vertex can follow
LINEAR = "LINEAR"


@dataclass(frozen=True, eq=False)
class RiggedMesh:
    """A mesh in metres. Vertices at a seam of the texture appear once for each of their places in it."""

    positions: Array  # [V, 3]
    normals: Array  # [V, 3] of length 1
    uv: Array  # [V, 2] from the upper left corner of the texture
    parts: dict[str, Array]  # name of each material and its faces [F, 3]
    texture: bytes  # a PNG file with colours that contain no light
    targets: dict[str, Array]  # name of each blend shape and its displacements [V, 3]
    target_weights: Array  # [n] at rest
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]  # -1: the root
    joints: Array  # [K, 3]
    rotations: Array  # [K, 4] at rest: quaternions x, y, z, w
    weights: Array  # [V, K] how much each vertex follows each joint


class Rig(NamedTuple):
    """The indices of what was added to a GLB."""

    mesh: int  # the node that shows the mesh
    joints: tuple[int, ...]  # nodes
    lost: float  # the largest share of a vertex's weights that did not fit


def add_rigged_mesh(glb: Glb, name: str, mesh: RiggedMesh) -> Rig:
    """Add a mesh to the scene. Its skeleton, if it has one, stands beside it."""
    node: dict[str, Any] = {"name": name}
    joints: tuple[int, ...] = ()
    attributes = {
        "POSITION": glb.add_array(mesh.positions.astype(np.float32), bounds=True),
        "NORMAL": glb.add_array(mesh.normals.astype(np.float32)),
        "TEXCOORD_0": glb.add_array(mesh.uv.astype(np.float32)),
    }
    lost = 0.0
    if mesh.parents:
        indices, weights, lost = strongest(mesh.weights)
        attributes |= {"JOINTS_0": glb.add_array(indices), "WEIGHTS_0": glb.add_array(weights)}
        joints = _add_joints(glb, mesh)
        node["skin"] = _add_skin(glb, mesh.joints, joints)
    node["mesh"] = _add_mesh(glb, name, mesh, attributes)
    index = glb.add("nodes", node)
    glb.show(index)
    return Rig(index, joints, lost)


def strongest(weights: Array) -> tuple[Array, Array, float]:  # [V, K] -> [V, 4] uint8, [V, 4] float32
    """Return the four joints that each vertex follows most, their weights with sum 1, and the largest share lost."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, order, 1).clip(0)
    total = kept.sum(1, keepdims=True)
    lost = float((1 - total / weights.sum(1, keepdims=True)).max())
    kept = kept / total
    indices = np.where(kept > 0, order, 0)  # joints without weight must be 0
    missing = ((0, 0), (0, INFLUENCES - kept.shape[1]))
    return np.pad(indices, missing).astype(np.uint8), np.pad(kept, missing).astype(np.float32), lost


def _add_mesh(glb: Glb, name: str, mesh: RiggedMesh, attributes: dict[str, int]) -> int:
    shapes = [{"POSITION": glb.add_displacements(values)} for values in mesh.targets.values()]
    kind = np.uint32 if len(mesh.positions) > 0xFFFF else np.uint16
    first = glb.add_material(mesh.texture, next(iter(mesh.parts)), lit=True)
    primitives = []
    for part, faces in mesh.parts.items():
        material = first
        if part != glb.document["materials"][first]["name"]:
            material = glb.add("materials", glb.document["materials"][first] | {"name": part})
        primitive: dict[str, Any] = {
            "attributes": attributes,
            "indices": glb.add_array(faces.ravel().astype(kind), ELEMENT_ARRAY_BUFFER),
            "material": material,
        }
        primitives.append(primitive | ({"targets": shapes} if shapes else {}))
    entry: dict[str, Any] = {"name": name, "primitives": primitives}
    if shapes:
        entry |= {"weights": mesh.target_weights.tolist(), "extras": {"targetNames": list(mesh.targets)}}
    return glb.add("meshes", entry)


def _add_joints(glb: Glb, mesh: RiggedMesh) -> tuple[int, ...]:
    """Add a node for each joint, placed relative to its parent, and show the root."""
    nodes: list[int] = []
    for name, parent, place, turn in zip(mesh.joint_names, mesh.parents, mesh.joints, mesh.rotations, strict=True):
        step = place if parent < 0 else place - mesh.joints[parent]
        node = glb.add("nodes", {"name": name, "translation": step.tolist(), "rotation": turn.tolist()})
        if parent < 0:
            glb.show(node)
        else:
            glb.document["nodes"][nodes[parent]].setdefault("children", []).append(node)
        nodes.append(node)
    return tuple(nodes)


def _add_skin(glb: Glb, places: Array, joints: tuple[int, ...]) -> int:
    """Add a skin. The inverse bind matrices, column by column, move each joint to the origin."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(places), 1, 1))
    matrices[:, 3, :3] = -places
    bind = glb.add_array(matrices.reshape(-1, 16), target=None)
    return glb.add("skins", {"joints": list(joints), "skeleton": joints[0], "inverseBindMatrices": bind})


def add_animation(
    glb: Glb,
    rig: Rig,
    times: Array,  # [T] seconds, ascending
    weights: Array | None,  # [T, n] of all blend shapes
    rotations: dict[int, Array],  # quaternions [T, 4] by joint
    name: str = "track",
) -> None:
    """Add an animation, interpolated linearly between the times."""
    clock = glb.add_array(times.astype(np.float32), target=None, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(values: Array, node: int, path: str) -> None:
        output = glb.add_array(values.astype(np.float32), target=None)
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": clock, "output": output, "interpolation": LINEAR})

    if weights is not None:
        add(weights.ravel(), rig.mesh, "weights")
    for joint, turns in rotations.items():
        add(turns, rig.joints[joint], "rotation")
    glb.add("animations", {"name": name, "channels": channels, "samplers": samplers})


def quaternions(turns: Array) -> Array:  # [..., 3] axis times angle in radians -> [..., 4] x, y, z, w
    """Return rotations as unit quaternions."""
    angle = np.linalg.norm(turns, axis=-1, keepdims=True)
    return np.concatenate([turns * 0.5 * np.sinc(angle / (2 * np.pi)), np.cos(angle / 2)], -1)

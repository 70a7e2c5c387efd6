"""Heads as GLB files with blend shapes, joints, a texture and animations.

All of the model's equations can be said in glTF but for `posedirs`, the corrections for turned joints, which are left
out.
"""

import io
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.core.files import check_free_file, replacing
from dreamportrait.export.glb import Glb
from dreamportrait.export.mesh import METRES
from dreamportrait.export.provenance import EXTRAS, Claim
from dreamportrait.export.rigged_glb import RiggedMesh, add_animation, add_rigged_mesh, quaternions
from dreamportrait.geometry.images import to_bytes
from dreamportrait.geometry.meshes import vertex_normals
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import joints, shaped, to_world

SUFFIX = ".glb"
HEAD = "head"  # the key in asset.extras


class Head(Protocol):
    """What is saved: see head.Head."""

    @property
    def model(self) -> HeadModel: ...
    @property
    def beta(self) -> Tensor: ...  # [m]
    @property
    def texture(self) -> Tensor: ...  # [3, T, T]
    @property
    def seed(self) -> int: ...
    @property
    def prompt(self) -> str: ...
    @property
    def psi(self) -> Tensor | None: ...  # [e]
    @property
    def theta(self) -> Tensor | None: ...  # [K, 3]


def save_glb(
    head: Head,
    path: str | Path,
    *,
    track: Track | None = None,  # an animation
    only_used: bool = False,  # leave out the expressions that neither the head nor the track uses
    overwrite: bool = False,
    provenance: bool = True,  # state that a model made the file, and its prompt
) -> float:
    """Write a GLB. Return the largest share of a vertex's skin weights that did not fit into it."""
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"{path}: must end in {SUFFIX}")
    check_free_file(path, overwrite)
    content, lost = glb_of(head, track, only_used, provenance)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
    return lost


def glb_of(
    head: Head, track: Track | None = None, only_used: bool = False, provenance: bool = True
) -> tuple[bytes, float]:
    """Return the content of a GLB, and the largest share of a vertex's weights that did not fit."""
    if track is not None:
        track.check(head.model)
    glb = Glb(_extras(head, provenance))
    glb.document["asset"]["copyright"] = head.model.licence
    names = _kept(head, track) if only_used else head.model.expr_names
    mesh = rigged(head, names)
    rig = add_rigged_mesh(glb, "head", mesh)
    if track is not None:
        weights = None
        if track.weights and names:
            still = np.tile(mesh.target_weights, (len(track.times), 1))
            for name, values in track.weights.items():
                still[:, names.index(name)] = values
            weights = still
        turns = {head.model.joint(name): quaternions(np.asarray(v)) for name, v in track.rotations.items()}
        add_animation(glb, rig, np.asarray(track.times), weights, turns)
    return glb.to_bytes(), rig.lost


def _extras(head: Head, provenance: bool) -> dict[str, Any]:
    """Return what is needed to read the head back, and the statement about its origin with the prompt."""
    model = head.model
    kept: dict[str, Any] = {"model": model.name, "licence": model.licence, "seed": head.seed}
    kept["beta"] = [round(b, 6) for b in head.beta.tolist()]
    if not provenance:
        return {HEAD: kept}
    if head.prompt:
        kept["prompt"] = head.prompt
    return {HEAD: kept, EXTRAS: Claim(model=model.name.rpartition("/")[2]).to_dict()}


def _kept(head: Head, track: Track | None) -> tuple[str, ...]:
    used = set(track.weights) if track is not None else set()
    if head.psi is not None:
        used |= {name for name, value in zip(head.model.expr_names, head.psi.tolist(), strict=True) if value}
    return tuple(name for name in head.model.expr_names if name in used)


def rigged(head: Head, names: tuple[str, ...]) -> RiggedMesh:
    """Return the head at rest, in metres, with the expressions of these names."""
    model, beta = head.model, head.beta[None]
    if model.uv is None or model.uv_faces is None:
        raise ValueError(f"head model {model.name!r} has no places in a texture (uv), so that it cannot be exported")
    corners = torch.stack([model.faces.flatten(), model.uv_faces.flatten()], 1)  # [3F, 2]
    pairs, index = torch.unique(corners, dim=0, return_inverse=True)  # [U, 2]: vertex and place
    vertex, faces = pairs[:, 0], index.reshape(-1, 3).numpy()
    at_rest = shaped(model, beta)
    length = METRES * model.scale
    targets = {}
    if model.exprdirs is not None:
        targets = {name: _array(model.exprdirs[vertex, :, model.expression(name)] * length) for name in names}
    psi = torch.zeros(model.num_expressions) if head.psi is None else head.psi
    theta = torch.zeros(model.num_joints, 3) if head.theta is None else head.theta
    rig = bool(model.parents)
    return RiggedMesh(
        positions=_array(to_world(model, at_rest)[0, vertex] * METRES),
        normals=_unit(_array(vertex_normals(at_rest, model.faces)[0, vertex])),
        uv=_array(model.uv[pairs[:, 1]]),
        parts=_parts(model, faces),
        texture=_png(head.texture),
        targets=targets,
        target_weights=_array(psi[[model.expression(name) for name in targets]]),
        joint_names=model.joint_names,
        parents=model.parents,
        joints=_array(to_world(model, joints(model, beta))[0] * METRES) if rig else np.zeros((0, 3)),
        rotations=quaternions(_array(theta)),
        weights=_array(model.weights[vertex]) if model.weights is not None else np.zeros((len(vertex), 0)),
    )


def _unit(normals: Array) -> Array:  # [V, 3]
    """Return normals of length 1; corners of faces without area have none, and get one towards the front."""
    flat = np.linalg.norm(normals, axis=1, keepdims=True) < 0.5
    return np.where(flat, [0.0, 0.0, 1.0], normals)


def _parts(model: HeadModel, faces: Array) -> dict[str, Array]:
    if model.parts is None:
        return {"skin": faces}
    part = model.parts.numpy()
    return {name: faces[part == i] for i, name in enumerate(model.part_names) if (part == i).any()}


def _png(texture: Tensor) -> bytes:  # [3, T, T] in 0 .. 1
    file = io.BytesIO()
    Image.fromarray(to_bytes(texture[None] * 2 - 1)[0]).save(file, "PNG", optimize=True)
    return file.getvalue()


def _array(values: Tensor) -> Array:
    found: Array = values.detach().double().numpy()
    return found

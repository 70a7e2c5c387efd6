"""Builds the head model of the miniature world: `python -m dreamportrait.mini.train head`."""

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.mini.head import basis, expressions, rig
from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.bake import bake, fine_atlas
from dreamportrait.miniworld.attributes import read_code, sample_codes
from dreamportrait.systems.heads.landmarks import on_surface
from dreamportrait.systems.heads.model import HeadModel

TEXTURES, TEXTURE_SEED = 64, 11
LICENCE = "Apache-2.0"


def head_model(heads: int = basis.HEADS) -> HeadModel:
    """Build the model. `heads`: how many random heads its basis is learnt from."""
    grid = mesh.build()
    learnt = basis.learn(grid, heads)
    follow = rig.jaw_weights(grid, learnt.mean)
    faces, uv, uv_faces = torch.from_numpy(grid.faces), _real(grid.uv), torch.from_numpy(grid.uv_faces)
    found = on_lids(grid, *on_surface(_real(learnt.mean), faces, _real(landmark_places(learnt.mean))))
    return HeadModel(
        name="mini/head",
        licence=LICENCE,
        v_template=_real(learnt.mean),
        shapedirs=_real(learnt.dirs),
        faces=faces,
        exprdirs=_real(expressions.dirs(grid, learnt.mean)),
        expr_names=expressions.NAMES,
        shape_names=learnt.names,
        trait_dirs=_real(learnt.trait_dirs),
        posedirs=_real(rig.pose_dirs(grid, learnt.mean, follow)),
        joint_names=rig.JOINTS,
        parents=rig.PARENTS,
        weights=_real(rig.skin_weights(grid, learnt.mean)),
        joint_regressor=_real(rig.regressor(grid)),
        uv=uv,
        uv_faces=uv_faces,
        mean_texture=_real(mean_texture(grid)),
        parts=torch.from_numpy(grid.parts),
        part_names=mesh.PARTS,
        landmark_faces=found[0],
        landmark_shares=found[1],
    )


def mean_texture(grid: mesh.Grid) -> Array:  # [3, T, T]
    """Return the mean texture of bald, bare heads."""
    places = fine_atlas(grid)
    total = np.zeros((3, mesh.ATLAS, mesh.ATLAS))
    for z in sample_codes(TEXTURES, TEXTURE_SEED):
        attributes, traits = read_code(z)
        total += bake(attributes | BARE, traits, grid, places)
    return total / TEXTURES


BARE = {
    "hair_style": "bald",
    "eyewear": "none",
    "facial_hair": "none",
    "hat": "none",
    "earrings": "none",
    "lipstick": "none",
    "expression": "neutral",
    "age": "young",
}


def landmark_places(mean: Array) -> Array:  # [68, 3]
    """Return 68 places on the mean face, in the usual order: jaw, brows, nose, eyes, outer and inner lips."""
    from dreamportrait.miniworld.faces import SCALE

    turn = np.radians(np.linspace(-85, 85, 17))
    jaw = np.stack([0.19 * np.sin(turn), -0.02 - 0.24 * np.cos(turn) ** 1.2, 0.20 * np.cos(turn)], 1)
    right, left = -0.084, 0.084
    arc = np.linspace(-0.05, 0.05, 5)
    brows = [np.stack([side + arc, 0.085 - 2 * arc**2, np.full(5, 0.215)], 1) for side in (right, left)]
    bridge = np.stack([np.zeros(4), np.linspace(0.01, -0.05, 4), np.linspace(0.235, 0.27, 4)], 1)
    base = np.stack([np.linspace(-0.028, 0.028, 5), np.full(5, -0.085), [0.235, 0.25, 0.258, 0.25, 0.235]], 1)
    ring = np.radians([180, 120, 60, 0, -60, -120])
    eyes = [
        np.stack([side + 0.046 * np.cos(ring), 0.005 + 0.036 * np.sin(ring), np.full(6, 0.212)], 1)
        for side in (right, left)
    ]
    outer = np.radians(np.linspace(180, -150, 12))
    lips = np.stack([0.075 * np.cos(outer), -0.148 + 0.022 * np.sin(outer), np.full(12, 0.205)], 1)
    inner = np.radians(np.linspace(180, -135, 8))
    lips_in = np.stack([0.062 * np.cos(inner), -0.148 + 0.008 * np.sin(inner), np.full(8, 0.207)], 1)
    found: Array = np.concatenate([jaw, *brows, bridge, base, *eyes, lips, lips_in]) * SCALE
    return found


def on_lids(grid: mesh.Grid, faces: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:  # [68], [68, 3]
    """Move the landmarks above and below the eyes to the edges of the lids, so that a blink moves them."""
    third = mesh.LID_COLUMNS // 3
    for side, first in (("right", 36), ("left", 42)):
        # Round the eye from the left of a viewer: corner, two above, corner, two below.
        for lid, row, marks in (("upper", -1, (first + 1, first + 2)), ("lower", 0, (first + 5, first + 4))):
            edge = grid.at(f"{side}_{lid}_lid").reshape(mesh.LID_ROWS, mesh.LID_COLUMNS)[row]
            for mark, column in zip(marks, (third, mesh.LID_COLUMNS - 1 - third), strict=True):
                face, corner = np.argwhere(grid.faces == edge[column])[0]
                faces[mark], shares[mark] = int(face), torch.eye(3)[corner]
    return faces, shares


def _real(values: Array) -> Tensor:
    """Return float32, rounded to 2^-20 so that different processors agree."""
    return torch.from_numpy(np.round(np.asarray(values, np.float64) * 2**20) / 2**20).float()

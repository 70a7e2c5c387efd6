"""Heads of a few vertices that can be worked out by hand: an arm with a joint, and a square wall."""

from typing import Any

import torch

from dreamportrait.systems.heads.model import HeadModel

WALL = torch.tensor([[-1.0, -1, 0], [1.0, -1, 0], [-1.0, 1, 0], [1.0, 1, 0]]) * 0.25


def arm(**changes: Any) -> HeadModel:
    """Return two triangles on the x axis: one follows the root at x = 0, one a joint at x = 1."""
    fields: dict[str, Any] = {
        "name": "arm",
        "licence": "none",
        "v_template": torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0]]),
        "shapedirs": torch.stack([torch.eye(3)[0].expand(6, 3), torch.eye(3)[2].expand(6, 3)], -1),
        "faces": torch.tensor([[0, 1, 2], [3, 4, 5]]),
        "exprdirs": torch.zeros(6, 3, 1).index_fill(0, torch.tensor([4]), 1.0),
        "expr_names": ("grow",),
        "posedirs": torch.zeros(6, 3, 9),
        "joint_names": ("root", "elbow"),
        "parents": (-1, 0),
        "weights": torch.tensor([[1.0, 0]] * 3 + [[0.0, 1]] * 3),
        "joint_regressor": torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 1, 0, 0]]),
        "uv": torch.tensor([[0.0, 0], [1, 0], [0, 1]]),
        "uv_faces": torch.tensor([[0, 1, 2], [0, 1, 2]]),
        "mean_texture": torch.full((3, 4, 4), 0.5),
    }
    return HeadModel(**(fields | changes))


def wall(**changes: Any) -> HeadModel:
    """Return a square that faces the camera, with a whole texture on it."""
    fields: dict[str, Any] = {
        "v_template": WALL,
        "shapedirs": torch.eye(3)[:1].T.expand(4, 3, 1),
        "faces": torch.tensor([[0, 1, 2], [2, 1, 3]]),
        "exprdirs": None,
        "expr_names": (),
        "posedirs": None,
        "parents": (),
        "joint_names": (),
        "weights": None,
        "joint_regressor": None,
        "uv": torch.tensor([[0.0, 1], [1, 1], [0, 0], [1, 0]]),
        "uv_faces": torch.tensor([[0, 1, 2], [2, 1, 3]]),
    }
    return arm(**(fields | changes))

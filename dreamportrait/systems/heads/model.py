"""A linear model of heads: a mean shape, weighted directions, and optionally expressions, joints and a texture.

    v_template  [V, 3]     mean vertices                     shapedirs  [V, 3, m]   identity
    exprdirs    [V, 3, e]  expressions                       posedirs   [V, 3, 9 (K - 1)]  corrections for rotations
    weights     [V, K]     how much each vertex follows each joint

Joints depend on the shape alone: through a regressor from vertices, or as a template with directions of their own.
A model with v_template, shapedirs and faces alone, without rig, works everywhere but in animations.

Lengths are the model's own. `scale` and `offset` take them to the world of the cameras: world = scale * v + offset.
skinning.py has the equations, folder.py reads and writes models.
"""

from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError, listed
from dreamportrait.geometry.meshes import Edges, edges_of

MOST_VERTICES = 200_000


@dataclass(frozen=True, eq=False)
class HeadModel:
    name: str
    licence: str
    v_template: Tensor  # [V, 3]
    shapedirs: Tensor  # [V, 3, m]
    faces: Tensor  # [F, 3] int64
    exprdirs: Tensor | None = None  # [V, 3, e]
    expr_names: tuple[str, ...] = ()
    shape_names: tuple[str, ...] = ()  # named traits
    trait_dirs: Tensor | None = None  # [traits, m] weights of one unit of each trait
    posedirs: Tensor | None = None  # [V, 3, 9 (K - 1)]
    joint_names: tuple[str, ...] = ()
    parents: tuple[int, ...] = ()  # -1: the root
    weights: Tensor | None = None  # [V, K]
    joint_regressor: Tensor | None = None  # [K, V]
    joint_template: Tensor | None = None  # [K, 3]
    joint_dirs: Tensor | None = None  # [m, K, 3]
    uv: Tensor | None = None  # [U, 2] from the upper left corner, 0 .. 1
    uv_faces: Tensor | None = None  # [F, 3] int64
    mean_texture: Tensor | None = None  # [3, T, T] in 0 .. 1
    parts: Tensor | None = None  # [F] int64, index into part_names
    part_names: tuple[str, ...] = ()
    landmark_faces: Tensor | None = None  # [L] int64
    landmark_shares: Tensor | None = None  # [L, 3] barycentric
    scale: float = 1.0  # world length of one unit
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    edges: Edges = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if problems := problems_of(self):
            raise WeightsError(f"head model {self.name!r}: " + "; ".join(problems))
        object.__setattr__(self, "edges", edges_of(self.faces))

    @property
    def num_shapes(self) -> int:
        return self.shapedirs.shape[2]

    @property
    def num_expressions(self) -> int:
        return 0 if self.exprdirs is None else self.exprdirs.shape[2]

    @property
    def num_joints(self) -> int:
        return len(self.parents)

    @property
    def height(self) -> float:
        """Return the height of the mean head, in the world's units."""
        return float(self.v_template[:, 1].max() - self.v_template[:, 1].min()) * self.scale

    def joint(self, name: str) -> int:
        return index_of(name, self.joint_names, "joint")

    def expression(self, name: str) -> int:
        return index_of(name, self.expr_names, "expression")

    def to(self, device: torch.device | str) -> "HeadModel":
        """Return the model with its tensors on a device."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in given.items()}
        return HeadModel(**moved)


def index_of(name: str, names: tuple[str, ...], what: str) -> int:
    """Return the place of a name, or raise ValueError that lists the nearest names."""
    if name in names:
        return names.index(name)
    near = get_close_matches(name, names, n=3, cutoff=0.4) or list(names[:6])
    known = f"the nearest are {', '.join(near)}" if names else "this head has none"
    raise ValueError(f"unknown {what} {name!r}; {known}")


def problems_of(model: HeadModel) -> list[str]:
    """Return everything that is wrong with the fields of a model."""
    v, m, k, e = (len(model.v_template), model.shapedirs.shape[-1], len(model.parents), len(model.expr_names))
    f, u = len(model.faces), 0 if model.uv is None else len(model.uv)
    lands = 0 if model.landmark_faces is None else len(model.landmark_faces)
    shapes: dict[str, list[int]] = {
        "v_template": [v, 3],
        "shapedirs": [v, 3, m],
        "faces": [f, 3],
        "exprdirs": [v, 3, e or m] if model.exprdirs is None else [v, 3, e or model.exprdirs.shape[-1]],
        "trait_dirs": [len(model.shape_names), m],
        "posedirs": [v, 3, 9 * max(k - 1, 0)],
        "weights": [v, k],
        "joint_regressor": [k, v],
        "joint_template": [k, 3],
        "joint_dirs": [m, k, 3],
        "uv": [u, 2],
        "uv_faces": [f, 3],
        "parts": [f],
        "landmark_faces": [lands],
        "landmark_shares": [lands, 3],
    }
    found = []
    for name, shape in shapes.items():
        value: Tensor | None = getattr(model, name)
        if value is None:
            continue
        if list(value.shape) != shape:
            found.append(f"{name} has shape {list(value.shape)}, must be {shape}")
        elif value.is_floating_point() and not value.isfinite().all():
            found.append(f"{name} holds NaN or infinite values")
    return found or [*_problems_of_indices(model, v, u), *_problems_of_rig(model)]


def _problems_of_indices(model: HeadModel, vertices: int, places: int) -> list[str]:
    found = []
    if vertices > MOST_VERTICES:
        found.append(f"{vertices} vertices, at most {MOST_VERTICES} are supported")
    limits = {"faces": vertices, "uv_faces": places, "parts": len(model.part_names), "landmark_faces": len(model.faces)}
    for name, limit in limits.items():
        value: Tensor | None = getattr(model, name)
        if value is not None and len(value) and not 0 <= int(value.min()) <= int(value.max()) < limit:
            found.append(f"{name} must be from 0 to {limit - 1}, found {int(value.min())} to {int(value.max())}")
    if (model.uv is None) != (model.uv_faces is None):
        found.append("uv and uv_faces must be given together")
    texture = model.mean_texture
    if texture is not None and (texture.ndim != 3 or len(texture) != 3 or texture.shape[1] != texture.shape[2]):
        found.append(f"mean_texture has shape {list(texture.shape)}, must be [3, T, T], square and RGB")
    if not model.scale > 0:
        found.append(f"scale={model.scale}: must be positive")
    return found


def _problems_of_rig(model: HeadModel) -> list[str]:
    if not model.parents:
        rigged = ("weights", "joint_regressor", "joint_template", "posedirs")
        return [f"{name} needs joints" for name in rigged if getattr(model, name) is not None]
    found = []
    if len(model.joint_names) != len(model.parents):
        found.append(f"{len(model.joint_names)} joint_names for {len(model.parents)} parents")
    wrong = [i for i, p in enumerate(model.parents) if not (p == -1 if i == 0 else 0 <= p < i)]
    if wrong:
        found.append(
            f"parents {list(model.parents)} are no tree: the first must be -1, every other a smaller index; "
            f"wrong at {listed(list(map(str, wrong)))}"
        )
    if model.weights is None:
        found.append("weights are missing")
    elif (off := (model.weights.sum(1) - 1).abs().max().item()) > 1e-3 or model.weights.min() < -1e-6:
        found.append(f"weights of a vertex must be at least 0 and sum to 1 within 0.001; they are off by {off:.2g}")
    if model.joint_regressor is None and (model.joint_template is None or model.joint_dirs is None):
        found.append("joints are missing: give joint_regressor, or joint_template and joint_dirs")
    return found

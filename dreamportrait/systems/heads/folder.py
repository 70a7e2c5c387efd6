"""Head models on disk: config.json with names and units, head.safetensors with all arrays. Nothing is unpickled.

Directions that move a part of the head only are stored for that part: `exprdirs_index` and `posedirs_index` list its
vertices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError, listed, shown
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.readers.hub import GNM, gnm_file
from dreamportrait.weights.folder import CONFIG, FORMAT_VERSION, read_json, read_tensors, write_folder
from dreamportrait.weights.registry import NAMES, locate
from dreamportrait.weights.seals import SEAL

TENSORS = "head.safetensors"
KIND = "head-model"
FILES = (CONFIG, TENSORS, "README.md", "training.json", "scores.json", SEAL)
_INDICES = ("faces", "uv_faces", "parts", "landmark_faces", "exprdirs_index", "posedirs_index")
_SPARSE = ("exprdirs", "posedirs")
_WORDS = ("expr_names", "shape_names", "joint_names", "part_names")
_NEEDED = ("v_template", "shapedirs", "faces")
_PLAIN = ("name", "licence", "scale", "offset", "parents", *_WORDS)


@dataclass(frozen=True)
class HeadConfig:
    """The content of config.json."""

    name: str
    licence: str
    scale: float
    offset: tuple[float, float, float]
    parents: tuple[int, ...]
    expr_names: tuple[str, ...]
    shape_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    part_names: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)  # remarks on origin and limits
    kind: str = KIND
    format_version: int = FORMAT_VERSION


def save_head_model(
    model: HeadModel,
    folder: str | Path,
    *,
    notes: dict[str, Any] | None = None,
    half: bool = False,
    overwrite: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write a model. half: store directions in half precision, which is read as single precision."""
    config = HeadConfig(**{name: getattr(model, name) for name in _PLAIN}, notes=notes or {})
    write_folder(folder, config, {TENSORS: _stored(model, half)}, overwrite, FILES, finish)


def _stored(model: HeadModel, half: bool) -> dict[str, Tensor]:
    tensors = {f.name: getattr(model, f.name) for f in fields(model) if f.init}
    stored = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    for name in _SPARSE:
        if name in stored and stored[name].numel():
            moved = torch.nonzero(stored[name].abs().amax((1, 2)) > 0).flatten()
            if 0 < len(moved) < len(stored[name]):
                stored |= {name: stored[name][moved], f"{name}_index": moved}
    for name in _INDICES:
        if name in stored:
            largest = int(stored[name].max()) if stored[name].numel() else 0
            stored[name] = stored[name].to(torch.int16 if largest < 2**15 else torch.int32)
    if half:
        for name in ("shapedirs", "exprdirs", "posedirs", "mean_texture"):
            if name in stored:
                stored[name] = stored[name].half()
    return stored


def load_head_model(source: str | Path, offline: bool = False) -> HeadModel:
    """Load a model by name, "mini/head" or "gnm" (fetched at first use), or from a folder."""
    if str(source) == GNM:
        from dreamportrait.systems.heads.readers.gnm import read_gnm

        return read_gnm(gnm_file(offline)).model
    return read_head_model(locate(str(source)) if str(source) in NAMES else source)


def read_head_model(folder: str | Path) -> HeadModel:
    """Read a model. All problems of its fields are reported at once."""
    folder = Path(folder)
    values = read_json(folder / CONFIG, "`dreamportrait convert` writes folders of head models")
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise WeightsError(f"{folder / CONFIG} does not describe a head model: kind must be {KIND!r}")
    tensors = read_tensors(folder / TENSORS)
    if missing := [name for name in _NEEDED if name not in tensors]:
        raise WeightsError(f"{folder / TENSORS} lacks {listed(missing)}")
    known = {f.name for f in fields(HeadModel) if f.init} | {f"{name}_index" for name in _SPARSE}
    if unknown := [shown(name) for name in tensors if name not in known]:
        raise WeightsError(f"{folder / TENSORS} holds unknown arrays: {listed(unknown)}")
    for name in _INDICES:
        if name in tensors:
            tensors[name] = tensors[name].long()
    for name in _SPARSE:
        _spread(tensors, name, folder)
    arrays: dict[str, Any] = {name: value.contiguous() for name, value in tensors.items()}
    return HeadModel(**_plain(values, folder), **arrays)


def _spread(tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    """Give zeros to the vertices that directions do not move."""
    index = tensors.pop(f"{name}_index", None)
    if index is None:
        return
    vertices, dirs = len(tensors["v_template"]), tensors.get(name)
    fits = dirs is not None and dirs.ndim == 3 and index.shape == dirs.shape[:1] and len(index) > 0
    if dirs is None or not fits or not 0 <= int(index.min()) <= int(index.max()) < vertices:
        raise WeightsError(f"{folder / TENSORS}: {name}_index must name one of the {vertices} vertices for each row")
    tensors[name] = dirs.new_zeros(vertices, *dirs.shape[1:]).index_copy(0, index, dirs)


def _plain(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fields that are no arrays, with their types checked."""
    problems = []
    for name, kind in (("name", str), ("licence", str)):
        if not isinstance(values.get(name), kind):
            problems.append(f"{name} must be text")
    for name in (*_WORDS, "parents", "offset"):
        entry = values.get(name)
        kinds: Any = str if name in _WORDS else int if name == "parents" else (int, float)
        if not isinstance(entry, list) or not all(isinstance(item, kinds) for item in entry):
            problems.append(f"{name} must be a list of {'text' if name in _WORDS else 'numbers'}")
    if not isinstance(values.get("scale"), int | float):
        problems.append("scale must be a number")
    if problems:
        raise WeightsError(f"{folder / CONFIG}: {'; '.join(problems)}")
    found = {name: values[name] for name in _PLAIN}
    return found | {name: tuple(found[name]) for name in (*_WORDS, "parents", "offset")}


def notes_of(folder: str | Path) -> dict[str, Any]:
    """Return the remarks stored with a model."""
    values = read_json(Path(folder) / CONFIG, "`dreamportrait convert` writes folders of head models")
    notes = values.get("notes") if isinstance(values, dict) else None
    return notes if isinstance(notes, dict) else {}


def describe(model: HeadModel) -> str:
    """Return one line about a model."""
    sizes = f"{len(model.v_template)} vertices, {len(model.faces)} faces, {model.num_shapes} shapes"
    rest = f"{model.num_expressions} expressions, {model.num_joints} joints"
    texture = "no texture" if model.mean_texture is None else f"texture {model.mean_texture.shape[1]}"
    return f"{model.name}: {sizes}, {rest}, {texture}; {model.licence}"

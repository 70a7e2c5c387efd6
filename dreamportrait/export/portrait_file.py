"""Portraits in files: tri-planes, ws and cameras in one safetensors file, and what they are in its metadata.

    planes    [3, C, H, W]
    ws        [num_ws, w_dim]
    cameras   [V, 25] of the requested views, which are rendered again when the file is read
    metadata  `portrait`: JSON with format_version, code_version, prompt, seed, and the hash of the generator

A portrait can only be rendered by the generator that made its planes, so the hash of its weights is compared.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.core.files import check_free_file, honour_umask, replacing
from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import camera_labels
from dreamportrait.weights.folder import check_finite
from dreamportrait.weights.hashing import weights_hash

SUFFIX = ".safetensors"
FORMAT_VERSION = 1
KEY = "portrait"  # of the metadata
_TENSORS = ("cameras", "planes", "ws")
_REMEDY = "save the portrait again, or make it anew from its prompt and seed"


class StoredPortrait(NamedTuple):
    """The content of a file."""

    prompt: str
    seed: int | None
    planes: Tensor  # [3, C, H, W]
    ws: Tensor  # [num_ws, w_dim]
    cameras: Tensor  # [V, 25]


@dataclass(frozen=True)
class Label:
    """The metadata of a file."""

    format_version: int
    code_version: str
    prompt: str
    seed: str | None  # digits: JSON readers round large numbers
    generator: str  # SHA-256 of its weights


def check_portrait_target(path: str | Path, overwrite: bool = False) -> Path:
    """Raise an error unless a portrait may be written to `path`; return the path."""
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a portrait's file must end in {SUFFIX}")
    return check_free_file(path, overwrite)


def write_portrait_file(
    path: str | Path, stored: StoredPortrait, generator: TriPlaneGenerator, overwrite: bool = False
) -> None:
    """Write a file by way of a temporary one, so that it is either complete or absent."""
    path = check_portrait_target(path, overwrite)
    label = {
        "format_version": FORMAT_VERSION,
        "code_version": __version__,
        "prompt": stored.prompt,
        "seed": None if stored.seed is None else str(stored.seed),
        "generator": weights_hash(generator),
    }
    tensors = {name: getattr(stored, name).detach().float().cpu().contiguous() for name in _TENSORS}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt", KEY: json.dumps(label)})
        honour_umask(unfinished)


def read_portrait_file(path: str | Path, generator: TriPlaneGenerator) -> StoredPortrait:
    """Read a file. Raise WeightsError unless this generator can render its portrait."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is no file; name one that Portrait.save wrote")
    try:
        with safe_open(path, "pt") as file:
            label = _label(file.metadata() or {}, path)
            if label.generator != weights_hash(generator):
                raise WeightsError(
                    f"{path}: the portrait was made by another model (its generator has SHA-256 "
                    f"{shown(label.generator[:12])}); load it with the pipeline that made it"
                )
            names = sorted(file.keys())
            if names != sorted(_TENSORS):
                found = [shown(name) for name in names[:6]]
                raise WeightsError(f"{path} must hold {', '.join(_TENSORS)}, got {', '.join(found)}; {_REMEDY}")
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is no portrait, or is damaged: {error}; {_REMEDY}") from None
    _check_tensors(tensors, generator, path)
    return StoredPortrait(label.prompt, None if label.seed is None else int(label.seed), **tensors)


def _label(metadata: dict[str, str], path: Path) -> Label:
    if KEY not in metadata:
        raise WeightsError(f"{path} is a safetensors file, but no portrait; name one that Portrait.save wrote")
    try:
        values: Any = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata is no JSON: {error}; {_REMEDY}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version {version} is newer than {FORMAT_VERSION}, which this version of dreamportrait "
            "reads; install a newer dreamportrait"
        )
    if version != FORMAT_VERSION:
        raise WeightsError(f"{path}: format_version {version!r} must be {FORMAT_VERSION}; {_REMEDY}")
    label = from_dict(Label, values, f"{path}: metadata")
    if label.seed is not None and not (label.seed.isascii() and label.seed.isdigit() and len(label.seed) < 20):
        raise WeightsError(f"{path}: seed {shown(label.seed)} must be digits; {_REMEDY}")
    return label


def _check_tensors(tensors: dict[str, Tensor], generator: TriPlaneGenerator, path: Path) -> None:
    c = generator.config
    size = c.plane_resolution
    expected = {"planes": [c.num_planes, c.plane_channels, size, size], "ws": [generator.num_ws, c.w_dim]}
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape or tensors[name].dtype != torch.float32:
            given = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            raise WeightsError(f"{path}: {name} must be torch.float32 {shape}, got {given}; {_REMEDY}")
    check_finite(tensors, str(path))
    try:
        camera_labels(tensors["cameras"])
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: {error}; {_REMEDY}") from None

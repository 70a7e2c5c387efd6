"""Reads heads back from the GLBs that this program wrote: the weights of the identity, the texture and the pose."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.export.glb import BINARY_CHUNK, JSON_CHUNK
from dreamportrait.systems.heads.folder import load_head_model
from dreamportrait.systems.heads.glb import HEAD
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.model import HeadModel

MAX_BYTES = 512 * 2**20
MAX_SIDE = 8192  # texels


def load_head(path: str | Path, source: str | Path | None = None) -> Head:
    """Read a head from a GLB, or the mean head of a folder.

    source: the head model of a GLB; None: the one that it names.
    """
    path = Path(path)
    if path.is_dir():
        model = load_head_model(path)
        if model.mean_texture is None:
            raise WeightsError(f"head model {model.name!r} has no mean texture, so that it cannot be drawn")
        return Head(model, torch.zeros(model.num_shapes), model.mean_texture)
    document, binary = _read(path)
    try:
        kept = document["asset"]["extras"][HEAD]
        name, beta, seed = kept["model"], [float(b) for b in kept["beta"]], int(kept["seed"])
        prompt = str(kept.get("prompt", ""))
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{path} is no head of `dreamportrait head`: it lacks asset.extras.{HEAD}") from None
    model = load_head_model(source if source is not None else _named(path, name))
    if model.name != name or len(beta) != model.num_shapes or not np.isfinite(beta).all():
        raise WeightsError(
            f"{path} was made with head model {shown(str(name))} and {len(beta)} weights; {model.name!r} has "
            f"{model.num_shapes}: name its folder with --head"
        )
    try:
        texture = _texture(document, binary)
        psi, theta = _pose(document, model)
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    return Head(model, torch.tensor(beta), texture, prompt, seed, psi, theta)


def _named(path: Path, name: object) -> str:
    from dreamportrait.systems.heads.readers.hub import GNM

    known = {"mini/head": "mini/head", "gnm_head": GNM}
    if name not in known:
        raise WeightsError(f"{path} was made with head model {shown(str(name))}; name its folder with --head")
    return known[str(name)]


def _read(path: Path) -> tuple[dict[str, Any], memoryview]:
    if not path.is_file():
        raise WeightsError(f"{path} is not there")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path} has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
    content = memoryview(path.read_bytes())
    try:
        magic, _, _ = struct.unpack_from("<4sII", content)
        size, kind = struct.unpack_from("<II", content, 12)
        document = json.loads(bytes(content[20 : 20 + size]))
        _, binary = struct.unpack_from("<II", content, 20 + size)
    except (struct.error, ValueError, RecursionError):
        raise WeightsError(f"{path} is no GLB, or is damaged") from None
    if magic != b"glTF" or (kind, binary) != (JSON_CHUNK, BINARY_CHUNK) or not isinstance(document, dict):
        raise WeightsError(f"{path} is no GLB, or is damaged")
    return document, content[28 + size :]


def _texture(document: dict[str, Any], binary: memoryview) -> Tensor:  # [3, T, T] in 0 .. 1
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start = int(view["byteOffset"])
    with Image.open(io.BytesIO(binary[start : start + int(view["byteLength"])]), formats=("PNG",)) as picture:
        if picture.width != picture.height or picture.width > MAX_SIDE:
            raise ValueError(f"its texture is {picture.width} x {picture.height}, must be square")
        pixels = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def _pose(document: dict[str, Any], model: HeadModel) -> tuple[Tensor | None, Tensor | None]:
    """Return expressions and turns at rest."""
    mesh = document["meshes"][0]
    psi = torch.zeros(model.num_expressions)
    for name, weight in zip(mesh.get("extras", {}).get("targetNames", ()), mesh.get("weights", ()), strict=True):
        psi[model.expression(name)] = float(weight)
    theta = torch.zeros(model.num_joints, 3)
    for node in document["nodes"]:
        if node.get("name") in model.joint_names and "rotation" in node:
            x, y, z, w = (float(v) for v in node["rotation"])
            axis = torch.tensor([x, y, z]) * (-1 if w < 0 else 1)
            angle = 2 * torch.atan2(axis.norm(), torch.tensor(abs(w)))
            theta[model.joint(node["name"])] = axis / axis.norm().clamp_min(1e-12) * angle
    return psi if len(psi) else None, theta if len(theta) else None

"""Folders with one network: config.json and model.safetensors, matrices in half precision."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.files import MEBIBYTE, read_text
from dreamportrait.weights.folder import check_finite, write_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT_VERSION = 1


def write(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write the folder. Vectors keep their precision, because they are small and statistics and gains need it."""
    halved = {name: x.half() if x.is_floating_point() and x.ndim > 1 else x for name, x in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, halved)
    text = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2, allow_nan=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, in single precision, and the configuration. Check that the tensors are finite."""
    config, path = _read_config(folder / CONFIG), folder / WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; train it, or name a complete folder") from None
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or is damaged: {error}") from None
    whole = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    check_finite(whole, str(path))
    return whole, config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_text(path, MEBIBYTE))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; train it, or name a complete folder") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    return dict(values)

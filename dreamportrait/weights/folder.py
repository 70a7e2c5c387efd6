"""Folders of weights: config.json and one safetensors file per network, for networks of any kind.

A folder is written under a temporary name and renamed when it is complete.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamportrait.core.errors import WeightsError, listed, shown
from dreamportrait.core.files import MEBIBYTE, honour_umask, new_folder, read_text

FORMAT_VERSION = 1
CONFIG = "config.json"

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


def build_empty(kind: Callable[[Config], Network], config: Config, where: str) -> Network:
    """Build a network on the meta device: its tensors have names and shapes, but no values."""
    try:
        with torch.device("meta"):
            return kind(config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{where}: no network can be built from this configuration: {error}") from None


def check_tensors(
    network: nn.Module,
    found: Mapping[str, Any],  # tensors, or anything with shape and dtype
    where: str,  # names the source in errors
    optional: Collection[str] = (),  # tensors that may be missing
) -> None:
    """Raise WeightsError unless `found` has exactly the tensors of `network`, with their shapes and types."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in found and name not in optional]
    extra = [shown(name) for name in found if name not in expected]
    changed = []
    for name in [name for name in expected if name in found]:
        wanted, given = (f"{str(x.dtype)[6:]} {list(x.shape)}" for x in (expected[name], found[name]))
        if wanted != given:
            changed.append(f"{name} is {given}, not {wanted}")
    kinds = {"missing": missing, "unexpected": extra, "misshapen": changed}
    if problems := [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]:
        raise WeightsError(f"{where} does not hold the weights of this configuration; {'; '.join(problems)}")


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError if a tensor holds NaN or infinite values."""
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{where} holds NaN or infinite values in {listed(broken)}")


def load_network(
    kind: Callable[[Config], Network],
    config: Config,
    path: Path,
    optional: Collection[str] = (),  # tensors that may be missing in the file; they become zero
) -> Network:
    """Load a network in eval mode, on the CPU. Weights that are not finite are refused."""
    network = build_empty(kind, config, str(path.with_name(CONFIG)))
    tensors = read_tensors(path)
    check_tensors(network, tensors, str(path), optional)
    check_finite(tensors, str(path))
    for name, value in network.state_dict().items():
        if name in optional:
            tensors.setdefault(name, torch.zeros(value.shape))
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; half precision becomes single precision."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there") from None
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or is damaged: {error}") from None
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"})
    honour_umask(path)


def read_json(path: Path, origin: str) -> object:
    """Read JSON and check its format_version. origin: says, in the error for a missing file, what writes such files."""
    try:
        values: object = json.loads(read_text(path, MEBIBYTE))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; {origin}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if isinstance(values, dict) and values.get("format_version") != FORMAT_VERSION:
        version = values.get("format_version")
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    return values


def write_folder(
    folder: str | Path,
    config: Any,  # a dataclass
    tensors: dict[str, dict[str, Tensor]],
    overwrite: bool,
    files: Collection[str],  # an existing folder is only replaced if it holds nothing else
    finish: Callable[[Path], None] | None = None,  # called with the folder before it is moved to its place
) -> None:
    """Write config.json and one safetensors file for each network, completely or not at all."""
    with new_folder(folder, overwrite, files) as staging:
        _write_files(staging, config, tensors)
        if finish is not None:
            finish(staging)


def _write_files(folder: Path, config: Any, tensors: dict[str, dict[str, Tensor]]) -> None:
    for name, values in tensors.items():
        write_tensors(folder / name, values)
    text = json.dumps(asdict(config), indent=2, allow_nan=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")

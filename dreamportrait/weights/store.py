"""Networks on disk: a folder with config.json and one safetensors file per network.

    OUT/config.json                  what to build, where it came from, under which licence
    OUT/generator.safetensors
    OUT/discriminator.safetensors    where there is one

A folder is written beside its place and moved there when complete, so it is never half there.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamportrait import __version__
from dreamportrait.generator.config import GeneratorConfig
from dreamportrait.generator.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.weights.errors import WeightsError, listed, shown
from dreamportrait.weights.schema import from_dict

FORMAT_VERSION = 1
CONFIG, GENERATOR, DISCRIMINATOR = "config.json", "generator.safetensors", "discriminator.safetensors"
FILES = (CONFIG, GENERATOR, DISCRIMINATOR)

# Only official training adds it, so it may be absent: the labels' standard deviation, zero when unknown.
OPTIONAL = "dataset_label_std"

Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)
Network = TypeVar("Network", TriPlaneGenerator, DualDiscriminator)


@dataclass(frozen=True)
class Source:
    """The file that weights were converted from."""

    name: str
    sha256: str
    network: str  # which of its generators


@dataclass(frozen=True)
class FolderConfig:
    """config.json."""

    format_version: int
    code_version: str
    licence: str  # of the weights
    source: Source | None
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig | None


# Networks in memory.


def build_empty(kind: Callable[[Config], Network], config: Config, where: str) -> Network:
    """A network without storage: its names and shapes."""
    try:
        with torch.device("meta"):
            return kind(config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{where}: no network can be built from this configuration: {error}") from None


def check_tensors(network: nn.Module, found: Mapping[str, Any], where: str) -> None:
    """Every tensor there, none besides, each of the right shape and type; `found` may hold views of tensors."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in found and name != OPTIONAL]
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
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{where} holds NaN or infinite values in {listed(broken)}")


# Reading.


def load_generator(folder: str | Path, precision: str = "float32") -> TriPlaneGenerator:
    """The generator in a folder, in eval mode, on the CPU."""
    folder = Path(folder)
    config = replace(load_config(folder).generator, precision=precision)  # type: ignore[arg-type]
    return load_network(TriPlaneGenerator, config, folder / GENERATOR)


def load_discriminator(folder: str | Path, precision: str = "float32") -> DualDiscriminator:
    """The discriminator in a folder, in eval mode, on the CPU."""
    folder = Path(folder)
    stored = load_config(folder).discriminator
    if stored is None:
        raise WeightsError(f"{folder} has no discriminator; convert a snapshot that has one")
    config = replace(stored, precision=precision)  # type: ignore[arg-type]
    return load_network(DualDiscriminator, config, folder / DISCRIMINATOR)


def load_network(kind: Callable[[Config], Network], config: Config, path: Path) -> Network:
    """In eval mode, on the CPU."""
    network = build_empty(kind, config, str(path.with_name(CONFIG)))
    tensors = read_tensors(path)
    check_tensors(network, tensors, str(path))
    if (optional := network.state_dict().get(OPTIONAL)) is not None:
        tensors.setdefault(OPTIONAL, torch.zeros(optional.shape))
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """In single precision."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there") from None
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or is damaged: {error}") from None
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}


def load_config(folder: str | Path) -> FolderConfig:
    path = Path(folder) / CONFIG
    return from_dict(FolderConfig, read_config(path, "`dreamportrait convert` writes such folders"), str(path))


def read_config(path: Path, origin: str) -> object:
    """JSON of this format's version, otherwise unchecked; `origin` says who writes such files."""
    try:
        values: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; {origin}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if isinstance(values, dict) and values.get("format_version") != FORMAT_VERSION:
        version = values.get("format_version")
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    return values


# Writing.


def save_generator(
    generator: TriPlaneGenerator,
    folder: str | Path,
    *,
    licence: str,  # of the weights
    discriminator: DualDiscriminator | None = None,
    source: Source | None = None,
    half: bool = False,  # store float16; reading gives float32 again
    overwrite: bool = False,
) -> None:
    """Writes a folder that load_generator reads, and load_discriminator if one is given."""
    config = FolderConfig(
        *(FORMAT_VERSION, __version__, licence, source, generator.config),
        None if discriminator is None else discriminator.config,
    )
    networks = {GENERATOR: generator, DISCRIMINATOR: discriminator}
    tensors = {file: dict(network.state_dict()) for file, network in networks.items() if network is not None}
    if half:
        tensors = {file: {name: value.half() for name, value in part.items()} for file, part in tensors.items()}
    write_folder(folder, config, tensors, overwrite)


def check_free(folder: Path, overwrite: bool, files: Collection[str] = FILES) -> None:
    """That a folder may be written; only one of ours, with no files but these, is ever replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WeightsError(f"{folder} exists and is no folder")
    present = sorted(path.name for path in folder.iterdir())
    if present and not overwrite:
        raise WeightsError(f"{folder} exists and is not empty; name another folder, or allow overwriting")
    if foreign := [name for name in present if name not in files]:
        raise WeightsError(f"{folder} holds other files ({listed(foreign)}) and is left alone; name another folder")


def write_folder(
    folder: str | Path,
    config: Any,  # a dataclass
    tensors: dict[str, dict[str, Tensor]],
    overwrite: bool = False,
    files: Collection[str] = FILES,  # that a folder which is replaced may hold
    finish: Callable[[Path], None] | None = None,  # called with the folder before it is moved to its place
) -> None:
    """All or nothing."""
    with new_folder(folder, overwrite, files) as staging:
        _write_files(staging, config, tensors)
        if finish is not None:
            finish(staging)


@contextmanager
def new_folder(folder: str | Path, overwrite: bool, files: Collection[str]) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` at the end and leaves no trace after an error."""
    folder = Path(folder).resolve()
    check_free(folder, overwrite, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{use}") for use in ("new", "old"))
    staging.mkdir()
    try:
        yield staging
        _flush(staging)
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_files(folder: Path, config: Any, tensors: dict[str, dict[str, Tensor]]) -> None:
    for name, values in tensors.items():
        plain = {key: value.detach().cpu().contiguous() for key, value in values.items()}
        save_file(plain, folder / name, metadata={"format": "pt"})
    text = json.dumps(asdict(config), indent=2, allow_nan=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())

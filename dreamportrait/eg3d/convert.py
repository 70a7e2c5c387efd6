"""Converts official EG3D snapshots to folders of safetensors and JSON."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from dreamportrait import __version__
from dreamportrait.core.errors import SnapshotError, UnsafePickleError, WeightsError
from dreamportrait.core.files import check_free
from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.folder import DISCRIMINATOR, FILES, GENERATOR, OPTIONAL, FolderConfig, Source
from dreamportrait.eg3d.official import discriminator_config_from_official, generator_config_from_official
from dreamportrait.eg3d.snapshot import OfficialNetwork, Snapshot, find_network, plane_axes, read_snapshot
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.weights.folder import FORMAT_VERSION, build_empty, check_finite, check_tensors, write_folder

LICENCE = (
    "These weights stay under the licence of their source. Those released with EG3D are under the NVIDIA Source Code "
    "License, which allows research and evaluation only, no commercial use."
)

T = TypeVar("T", GeneratorConfig, DiscriminatorConfig)


def convert_eg3d(
    path: str | Path,
    folder: str | Path,
    *,
    use: Literal["G_ema", "G"] = "G_ema",  # the averaged generator, or the one that was being trained
    overwrite: bool = False,
) -> FolderConfig:
    """Write the networks of an official EG3D snapshot to a folder, and return the content of its config.json."""
    path, folder = Path(path), Path(folder)
    check_free(folder.resolve(), overwrite, FILES)  # before the work, not after
    try:
        config, tensors = _converted(read_snapshot(path), path.name, use)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path} is refused, nothing in it was executed: {error}") from None
    except WeightsError as error:
        raise type(error)(f"{path}: {error}") from None
    write_folder(folder, config, tensors, overwrite, FILES)
    return config


def _converted(snapshot: Snapshot, name: str, use: str) -> tuple[FolderConfig, dict[str, dict[str, Tensor]]]:
    network = find_network(snapshot, use, "TriPlaneGenerator", ("rendering_kwargs", "neural_rendering_resolution"))
    generator = _generator_config(network, use, plane_axes(snapshot, use))
    tensors = {GENERATOR: _weights(network, build_empty(TriPlaneGenerator, generator, use), snapshot, use)}
    discriminator = None
    if snapshot.entries.get("D") is not None:
        network = find_network(snapshot, "D", "DualDiscriminator")
        discriminator = _checked(DiscriminatorConfig, discriminator_config_from_official, network.init_kwargs, "D")
        empty = build_empty(DualDiscriminator, discriminator, "D")
        tensors[DISCRIMINATOR] = _weights(network, empty, snapshot, "D")
    source = Source(name, snapshot.sha256, use)
    config = FolderConfig(FORMAT_VERSION, __version__, LICENCE, source, generator, discriminator)
    return config, tensors


def _generator_config(network: OfficialNetwork, where: str, axes: str) -> GeneratorConfig:
    """Return the generator's settings, including those that official training changes after construction.

    These are the rendering options and the rendering resolution.
    """
    if (resolution := network.attributes.get("neural_rendering_resolution")) is None:
        raise SnapshotError(f"{where} has no neural_rendering_resolution")
    arguments = dict(network.init_kwargs)
    if "rendering_kwargs" in network.attributes:
        arguments["rendering_kwargs"] = network.attributes["rendering_kwargs"]

    def build(arguments: dict[str, Any]) -> GeneratorConfig:
        config = generator_config_from_official(arguments)
        return replace(config, render_resolution=resolution, plane_axes=axes)  # type: ignore[arg-type]

    return _checked(GeneratorConfig, build, arguments, where)


def _checked(kind: type[T], build: Callable[[dict[str, Any]], T], arguments: dict[str, Any], where: str) -> T:
    """Build a configuration from untrusted constructor arguments, and check it."""
    try:
        config = build(arguments)
    except (ValueError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{where} was not constructed as official networks are: {error}") from None
    return from_dict(kind, asdict(config), where)


def _weights(network: OfficialNetwork, empty: nn.Module, snapshot: Snapshot, where: str) -> dict[str, Tensor]:
    """Return the tensors of a stored network, after checking that they fit `empty` and are finite."""
    check_tensors(empty, network.tensors, where, OPTIONAL)
    if sum(len(view.data) for view in network.tensors.values()) > snapshot.size:
        raise SnapshotError(f"{where} has tensors that share storage: together they are larger than the file")
    tensors = {name: view.tensor() for name, view in network.tensors.items()}
    check_finite(tensors, where)
    return tensors

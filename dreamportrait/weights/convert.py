"""Official snapshot -> a folder of ours."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from dreamportrait import __version__
from dreamportrait.generator.config import GeneratorConfig
from dreamportrait.generator.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.generator.official import discriminator_config_from_official, generator_config_from_official
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.weights import store
from dreamportrait.weights.errors import SnapshotError, UnsafePickleError, WeightsError
from dreamportrait.weights.official import OfficialNetwork, Snapshot, find_network, plane_axes, read_snapshot
from dreamportrait.weights.schema import from_dict

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
) -> store.FolderConfig:
    """Writes the networks of an official EG3D snapshot to a folder, and returns its config.json."""
    path, folder = Path(path), Path(folder)
    store.check_free(folder.resolve(), overwrite)  # before the work, not after
    try:
        config, tensors = _converted(read_snapshot(path), path.name, use)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path} is refused, nothing in it was executed: {error}") from None
    except WeightsError as error:
        raise type(error)(f"{path}: {error}") from None
    store.write_folder(folder, config, tensors, overwrite)
    return config


def _converted(snapshot: Snapshot, name: str, use: str) -> tuple[store.FolderConfig, dict[str, dict[str, Tensor]]]:
    network = find_network(snapshot, use, "TriPlaneGenerator", ("rendering_kwargs", "neural_rendering_resolution"))
    generator = _generator_config(network, use, plane_axes(snapshot, use))
    tensors = {store.GENERATOR: _weights(network, store.build_empty(TriPlaneGenerator, generator, use), snapshot, use)}
    discriminator = None
    if snapshot.entries.get("D") is not None:
        network = find_network(snapshot, "D", "DualDiscriminator")
        discriminator = _checked(DiscriminatorConfig, discriminator_config_from_official, network.init_kwargs, "D")
        empty = store.build_empty(DualDiscriminator, discriminator, "D")
        tensors[store.DISCRIMINATOR] = _weights(network, empty, snapshot, "D")
    source = store.Source(name, snapshot.sha256, use)
    config = store.FolderConfig(store.FORMAT_VERSION, __version__, LICENCE, source, generator, discriminator)
    return config, tensors


def _generator_config(network: OfficialNetwork, where: str, axes: str) -> GeneratorConfig:
    """Settings changed after construction count: rendering options, and the resolution that training last rendered."""
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
    """A configuration from constructor arguments that may be anything."""
    try:
        config = build(arguments)
    except (ValueError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{where} was not constructed as official networks are: {error}") from None
    return from_dict(kind, asdict(config), where)


def _weights(network: OfficialNetwork, empty: nn.Module, snapshot: Snapshot, where: str) -> dict[str, Tensor]:
    """The tensors themselves, once it is certain that they are the right ones."""
    store.check_tensors(empty, network.tensors, where)
    if sum(len(view.data) for view in network.tensors.values()) > snapshot.size:
        raise SnapshotError(f"{where} has tensors that share storage: together they are larger than the file")
    tensors = {name: view.tensor() for name, view in network.tensors.items()}
    store.check_finite(tensors, where)
    return tensors

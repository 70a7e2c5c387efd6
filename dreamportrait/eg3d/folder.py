"""EG3D networks on disk.

OUT/config.json                  settings of the networks, their source and their licence
OUT/generator.safetensors
OUT/discriminator.safetensors    if there is one
"""

from dataclasses import dataclass, replace
from pathlib import Path

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError
from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.weights.folder import CONFIG, FORMAT_VERSION, load_network, read_json, write_folder

GENERATOR, DISCRIMINATOR = "generator.safetensors", "discriminator.safetensors"
FILES = (CONFIG, GENERATOR, DISCRIMINATOR)
# The standard deviation of the camera labels. Only official training stores it; it is zero if unknown.
OPTIONAL = ("dataset_label_std",)


@dataclass(frozen=True)
class Source:
    """The file that weights were converted from."""

    name: str
    sha256: str
    network: str  # the converted generator of the file: G_ema or G


@dataclass(frozen=True)
class FolderConfig:
    """The content of config.json."""

    format_version: int
    code_version: str
    licence: str  # licence of the weights
    source: Source | None
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig | None


def load_generator(folder: str | Path, precision: str = "float32") -> TriPlaneGenerator:
    """Load the generator of a folder, in eval mode, on the CPU."""
    folder = Path(folder)
    config = replace(load_eg3d_config(folder).generator, precision=precision)  # type: ignore[arg-type]
    return load_network(TriPlaneGenerator, config, folder / GENERATOR, OPTIONAL)


def load_discriminator(folder: str | Path, precision: str = "float32") -> DualDiscriminator:
    """Load the discriminator of a folder, in eval mode, on the CPU."""
    folder = Path(folder)
    stored = load_eg3d_config(folder).discriminator
    if stored is None:
        raise WeightsError(f"{folder} has no discriminator; convert a snapshot that has one")
    config = replace(stored, precision=precision)  # type: ignore[arg-type]
    return load_network(DualDiscriminator, config, folder / DISCRIMINATOR, OPTIONAL)


def load_eg3d_config(folder: str | Path) -> FolderConfig:
    """Read and check the config.json of a folder."""
    path = Path(folder) / CONFIG
    return from_dict(FolderConfig, read_json(path, "`dreamportrait convert` writes such folders"), str(path))


def save_generator(
    generator: TriPlaneGenerator,
    folder: str | Path,
    *,
    licence: str,  # licence of the weights
    discriminator: DualDiscriminator | None = None,
    source: Source | None = None,
    half: bool = False,  # store float16; reading gives float32 again
    overwrite: bool = False,
) -> None:
    """Write a folder for load_generator, and for load_discriminator if a discriminator is given."""
    config = FolderConfig(
        format_version=FORMAT_VERSION,
        code_version=__version__,
        licence=licence,
        source=source,
        generator=generator.config,
        discriminator=None if discriminator is None else discriminator.config,
    )
    networks = {GENERATOR: generator, DISCRIMINATOR: discriminator}
    tensors = {file: dict(network.state_dict()) for file, network in networks.items() if network is not None}
    if half:
        tensors = {file: {name: value.half() for name, value in part.items()} for file, part in tensors.items()}
    write_folder(folder, config, tensors, overwrite, FILES)

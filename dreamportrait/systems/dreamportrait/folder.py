"""Read and write text-conditioned generators, in folders with checksums.

OUT/config.json                  architecture, text features, the generator it was trained from, licence
OUT/generator.safetensors        the tri-plane generator, with the parameter names of a plain one. `mini` has none: its
                                 generator is mini/eg3d, unchanged, whose hash config.json holds
OUT/conditioning.safetensors     mapper and adapters
OUT/discriminator.safetensors    if there is one
OUT/projection.safetensors       of text in a text-aware discriminator
OUT/inverter.safetensors         from pictures to w, if the training fitted a text prior from pictures
OUT/files.json                   sizes and checksums of the files above
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError
from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.folder import DISCRIMINATOR, GENERATOR, OPTIONAL
from dreamportrait.eg3d.folder import FILES as EG3D_FILES
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.prior.inversion import Inverter
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.weights.folder import (
    CONFIG,
    FORMAT_VERSION,
    check_finite,
    check_tensors,
    load_network,
    read_json,
    read_tensors,
    write_folder,
)
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import locate
from dreamportrait.weights.seals import SEAL, seal, verify

CONDITIONING, INVERTER = "conditioning.safetensors", "inverter.safetensors"
PROJECTION = "projection.safetensors"
FILES = (*EG3D_FILES, CONDITIONING, PROJECTION, INVERTER, SEAL)
_REMEDY = "copy the folder again, or write it again with save_portrait"


@dataclass(frozen=True)
class TextSource:
    """The text features that the generator was trained with. It works with no others."""

    clip: str  # the name that load_text_encoder takes, e.g. "mini/clip-a"
    layer: Literal["penultimate"] = "penultimate"


@dataclass(frozen=True)
class PortraitConfig:
    """The content of config.json."""

    format_version: int
    code_version: str
    licence: str  # of the weights
    pretrained: str  # the generator that text conditioning was added to
    text: TextSource
    conditioning: ConditioningConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig | None
    # Of the generator that `pretrained` names, if it is this one and not stored a second time.
    generator_sha256: str | None = field(default=None, metadata={"later": True})


class PortraitNetworks(NamedTuple):
    """The networks of a folder, in eval mode and on the CPU."""

    generator: PortraitGenerator
    discriminator: DualDiscriminator | None
    text: TextSource
    inverter: Inverter | None = None
    projection: FullyConnected | None = None  # with the discriminator, it makes a Critic that reads text


def save_portrait(
    folder: str | Path,
    generator: PortraitGenerator,
    discriminator: DualDiscriminator | None,
    text: TextSource,
    *,
    inverter: Inverter | None = None,
    projection: FullyConnected | None = None,  # of text in a text-aware discriminator
    licence: str,  # of the weights
    pretrained: str,  # name or path of the generator that text conditioning was added to
    half: bool = False,  # store tensors of two dimensions or more as float16; reading gives float32 again
    store_generator: bool = True,  # False = it is the model that `pretrained` names, which comes with the package
    overwrite: bool = False,
) -> None:
    """Write a folder that load_portrait reads. If writing fails, an older folder stays as it was."""
    config = PortraitConfig(
        format_version=FORMAT_VERSION,
        code_version=__version__,
        licence=licence,
        pretrained=pretrained,
        text=text,
        conditioning=generator.conditioning,
        generator=generator.config,
        discriminator=None if discriminator is None else discriminator.config,
        generator_sha256=None if store_generator else weights_hash(generator.generator),
    )
    networks: dict[str, nn.Module] = {CONDITIONING: generator.listeners()}
    if store_generator:
        networks[GENERATOR] = generator.generator
    if inverter is not None:
        networks[INVERTER] = inverter
    if discriminator is not None:
        networks[DISCRIMINATOR] = discriminator
    if projection is not None:
        networks[PROJECTION] = projection
    tensors = {
        file: _tensors(network, f"the {Path(file).stem} to be saved", half) for file, network in networks.items()
    }
    write_folder(folder, config, tensors, overwrite, FILES, seal)


def _tensors(network: nn.Module, where: str, half: bool) -> dict[str, Tensor]:
    tensors = dict(network.state_dict())
    check_finite(tensors, where)
    return {name: x.half() if half and x.ndim > 1 else x for name, x in tensors.items()}


def load_portrait(folder: str | Path, precision: str = "float32") -> PortraitNetworks:
    """Load the networks of a folder. precision: of the highest resolutions of both networks, as for load_generator."""
    folder = Path(folder)
    config = load_portrait_config(folder)
    verify(folder, _REMEDY)
    lower: Any = {"precision": precision}
    generator = _generator(folder, config, replace(config.generator, **lower))
    portrait = _equipped(generator, config.conditioning, folder)
    discriminator = None
    if config.discriminator is not None:
        settings = replace(config.discriminator, **lower)
        discriminator = load_network(DualDiscriminator, settings, folder / DISCRIMINATOR, OPTIONAL)
    path = folder / INVERTER
    inverter = _inverter(path, portrait) if path.exists() else None
    projection = _projection(folder / PROJECTION, config, discriminator)
    return PortraitNetworks(portrait, discriminator, config.text, inverter, projection)


def _generator(folder: Path, config: PortraitConfig, sizes: GeneratorConfig) -> TriPlaneGenerator:
    if config.generator_sha256 is None:
        return load_network(TriPlaneGenerator, sizes, folder / GENERATOR, OPTIONAL)
    generator = load_network(TriPlaneGenerator, sizes, locate(config.pretrained) / GENERATOR, OPTIONAL)
    if (found := weights_hash(generator)) != config.generator_sha256:
        wanted = config.generator_sha256[:12]
        raise WeightsError(
            f"{folder} needs the generator {config.pretrained} with the hash {wanted}, and here it "
            f"has {found[:12]}; install the version of dreamportrait that the folder came with"
        )
    return generator


def _projection(path: Path, config: PortraitConfig, discriminator: DualDiscriminator | None) -> FullyConnected | None:
    if discriminator is None or not path.exists():
        return None
    critic = Critic(discriminator, config.conditioning.text_width)
    assert critic.projection is not None
    tensors = read_tensors(path)
    check_tensors(critic.projection, tensors, str(path))
    check_finite(tensors, str(path))
    critic.projection.load_state_dict(tensors)
    return critic.projection.eval()


def _inverter(path: Path, portrait: PortraitGenerator) -> Inverter:
    tensors = {name: value.float() for name, value in read_tensors(path).items()}
    try:
        inverter = Inverter.of(tensors)
    except (KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(f"{path} holds no network from pictures to w: {error}; {_REMEDY}") from None
    check_finite(tensors, str(path))
    made = inverter.net[-1].out_features
    if made != portrait.config.w_dim:
        raise WeightsError(f"{path} makes w of {made} numbers, the generator takes {portrait.config.w_dim}; {_REMEDY}")
    return inverter


def _equipped(generator: TriPlaneGenerator, conditioning: ConditioningConfig, folder: Path) -> PortraitGenerator:
    path = folder / CONDITIONING
    try:
        with torch.device("meta"):  # allocates no storage; the tensors read below are assigned
            portrait = PortraitGenerator(generator, conditioning)
    except ValueError as error:
        raise WeightsError(f"{folder / CONFIG}: no network can be built from this configuration: {error}") from None
    tensors, listeners = read_tensors(path), portrait.listeners()
    check_tensors(listeners, tensors, str(path))
    check_finite(tensors, str(path))
    listeners.load_state_dict(tensors, strict=True, assign=True)
    return portrait.eval()


def load_portrait_config(folder: str | Path) -> PortraitConfig:
    path = Path(folder) / CONFIG
    values = read_json(path, "save_portrait writes such folders")
    if isinstance(values, dict) and "generator" in values and "conditioning" not in values:
        raise WeightsError(
            f"{path} describes a plain generator, which has no text conditioning; load it with load_generator, "
            "add text with PortraitGenerator.equip and train it"
        )
    return from_dict(PortraitConfig, _with_newer_settings(values), str(path))


def _with_newer_settings(values: Any) -> Any:
    """Add settings that folders of earlier versions lack, with the values that mean the former behaviour."""
    if not isinstance(values, dict) or not isinstance(values.get("conditioning"), dict):
        return values
    former = {"mapper_blocks": 0, "mapper_width": ConditioningConfig.mapper_width}
    return values | {"conditioning": former | values["conditioning"]}

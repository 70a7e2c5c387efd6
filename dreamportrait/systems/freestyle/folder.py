"""Free-style models on disk: the network H, and everything that belongs to it by name.

OUT/config.json          sizes of H, its generator and editor, how styles are learnt with it, licence
OUT/i2t.safetensors      H, with the mean and the spread of planes
OUT/sheet.png            pictures of it, if there are any
OUT/files.json           sizes and checksums of the files above

H makes planes for one generator alone, whose hash is compared. Generator and editor are not in the folder: config.json
has their names in the registry or on the hub, or their paths.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError
from dreamportrait.core.files import new_folder
from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.folder import load_generator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.sheets import save_picture
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.fewshot import FewShotSettings
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.tuning import TuneSettings
from dreamportrait.weights import registry
from dreamportrait.weights.folder import (
    CONFIG,
    FORMAT_VERSION,
    check_finite,
    load_network,
    read_json,
    write_tensors,
)
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.seals import SEAL, seal, verify

NETWORK, SHEET = "i2t.safetensors", "sheet.png"
FILES = (CONFIG, NETWORK, SHEET, SEAL)
_REMEDY = "copy the folder again, or train it again"


@dataclass(frozen=True)
class FreestyleModel:
    """The content of config.json."""

    format_version: int
    code_version: str
    licence: str  # of the weights
    pretrained: str  # the generator that H makes planes for
    pretrained_sha256: str
    editor: str | None  # the editor of pictures. None = styles cannot be learnt, only applied
    perceptual: str  # distance in tuning, see perceptual.py
    network: I2TConfig
    few_shot: FewShotSettings  # defaults of `learn`
    tuning: TuneSettings


def save_model(
    folder: str | Path,
    network: ImageToTriplane,
    generator: TriPlaneGenerator,
    *,
    licence: str,
    pretrained: str,
    editor: str | None,
    perceptual: str = "none",
    few_shot: FewShotSettings | None = None,  # None = the defaults
    tuning: TuneSettings | None = None,
    sheet: Image.Image | None = None,
    half: bool = False,  # store tensors of two dimensions or more as float16; reading gives float32 again
    overwrite: bool = False,
) -> None:
    """Write a folder for load_model, completely or not at all."""
    network.config.check_fits(generator.config)
    about = FreestyleModel(
        format_version=FORMAT_VERSION,
        code_version=__version__,
        licence=licence,
        pretrained=pretrained,
        pretrained_sha256=weights_hash(generator),
        editor=editor,
        perceptual=perceptual,
        network=network.config,
        few_shot=few_shot or FewShotSettings(),
        tuning=tuning or TuneSettings(),
    )
    tensors = dict(network.state_dict())
    check_finite(tensors, "the network to be saved")
    stored = {name: x.half() if half and x.ndim > 1 else x for name, x in tensors.items()}
    with new_folder(folder, overwrite, FILES) as staging:
        write_tensors(staging / NETWORK, stored)
        (staging / CONFIG).write_text(json.dumps(asdict(about), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if sheet is not None:
            save_picture(sheet, staging / SHEET)
        seal(staging)


def read_model(folder: str | Path) -> FreestyleModel:
    """Read and check the config.json of a folder."""
    path = Path(folder) / CONFIG
    return from_dict(FreestyleModel, read_json(path, "training of H writes such folders"), str(path))


def load_network_of(folder: str | Path) -> ImageToTriplane:
    """Load H in eval mode, on the CPU, without gradients for its weights."""
    folder = Path(folder)
    about = read_model(folder)
    verify(folder, _REMEDY)
    return load_network(ImageToTriplane, about.network, folder / NETWORK).requires_grad_(False)


def load_generator_of(folder: str | Path, source: str | None = None, precision: str = "float32") -> TriPlaneGenerator:
    """Load the generator that H was trained with. source: where it is now; None = where config.json says."""
    about = read_model(folder)
    place = generator_folder(source or about.pretrained)
    generator = load_generator(place, precision)
    own = weights_hash(generator)
    if own != about.pretrained_sha256:
        raise WeightsError(
            f"{folder} was trained with the generator {about.pretrained} ({about.pretrained_sha256[:12]}), and {place} "
            f"is {own[:12]}; name the folder of that generator"
        )
    return generator.requires_grad_(False)


def generator_folder(source: str) -> Path:
    """Return the folder of a generator, given its name or path."""
    place = registry.locate(source) if source in registry.NAMES else Path(source)
    if not place.is_dir():
        raise WeightsError(f"the generator {source} is not there; name its folder, as `dreamportrait convert` wrote it")
    return place


def portable(source: str) -> str:
    """Return the name of a part as config.json states it: paths become absolute."""
    return str(Path(source).resolve()) if Path(source).exists() and source not in registry.NAMES else source

"""Load the generator to measure, by name, folder or checkpoint. From a checkpoint, only the running average is read."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.metrics.subject import Loaded
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.folder import TextSource, load_portrait
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator, TextTo3D
from dreamportrait.systems.dreamportrait.names import MINI, check_checkpoint, locate_portrait
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.training.checkpoints import saved_checkpoints
from dreamportrait.training.run_folder import CHECKPOINTS, CONFIG
from dreamportrait.weights.folder import check_finite, check_tensors

_PREFIX = "averaged."


class Averaged(NamedTuple):
    """The running average of a training, loaded from a checkpoint."""

    generator: PortraitGenerator  # in eval mode, on the CPU
    text: TextSource
    checkpoint: Path
    images: int  # seen by the training when the checkpoint was saved


def load_averaged(source: Path, precision: str = "float32") -> Averaged:
    """Load the running average of a checkpoint, or of the newest checkpoint in a run's folder. No file is changed."""
    path = _newest(source) if source.is_dir() else source
    run = path.resolve().parent.parent
    if not (run / CONFIG).is_file():
        raise WeightsError(
            f"{path}: no {run / CONFIG}, which says what was trained; keep the checkpoint in its run's folder"
        )
    config = load_config(run / CONFIG)
    state = _read(path)
    lower: Any = {"precision": precision}
    settings = replace(build.network_configs(config)[0], **lower)
    with torch.device("meta"):  # allocates no storage; the tensors that are read are assigned below
        conditioning = build.conditioning_config(config, build.text_width(config))
        generator = PortraitGenerator(TriPlaneGenerator(settings), conditioning)
    tensors = {k.removeprefix(_PREFIX): v for k, v in state["state_dict"].items() if k.startswith(_PREFIX)}
    check_tensors(generator, tensors, str(path))
    check_finite(tensors, str(path))
    generator.load_state_dict(tensors, strict=True, assign=True)
    return Averaged(generator.eval().requires_grad_(False), TextSource(config.text.clip), path, int(state["images"]))


def _newest(run: Path) -> Path:
    found = saved_checkpoints(run / CHECKPOINTS)
    if not found:
        raise WeightsError(f"{run / CHECKPOINTS} holds no checkpoint; continue the training, or name another run")
    return found[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict) or "images" not in state:
            raise ValueError("it does not contain the state of a training")
    except Exception as error:  # a damaged archive can raise any kind of error
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path} is not a checkpoint of a training, or is damaged: {reason}; name another") from None
    return state


def load_subject(
    source: str, precision: str = "float32", offline: bool = False, device: torch.device | str = "cpu"
) -> Loaded:
    """Load the generator to measure: "mini", a portrait's folder, a run's folder, or a checkpoint in it."""
    check_checkpoint(source)
    path = Path(source)
    if path.is_file() or (path / CONFIG).is_file():
        found = load_averaged(path, precision)
        generator, text = found.generator, found.text
        where: dict[str, Any] = {"checkpoint": str(found.checkpoint), "images": found.images}
    else:
        folder = locate_portrait(source)
        networks = load_portrait(folder, precision)
        generator, text = networks.generator, networks.text
        where = {"checkpoint": source if source == MINI else str(folder)}  # where the package lies says nothing
    encoder = load_text_encoder(text.clip, offline, device)
    about = where | {"text": {"clip": text.clip, "layer": text.layer}}
    return Loaded(TextTo3D(generator.to(device), encoder), generator, about)

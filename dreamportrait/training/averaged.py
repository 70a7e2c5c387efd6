"""The running average in a checkpoint of a training run, without the rest of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamportrait.config import load_config
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.training import build
from dreamportrait.training.callbacks.checkpoints import saved_checkpoints
from dreamportrait.training.run_folder import CHECKPOINTS, CONFIG
from dreamportrait.weights import store
from dreamportrait.weights.errors import WeightsError
from dreamportrait.weights.portrait import TextSource

_PREFIX = "averaged."


class Averaged(NamedTuple):
    generator: PortraitGenerator  # in eval mode, on the CPU
    text: TextSource
    checkpoint: Path
    images: int  # seen when it was saved


def load_averaged(source: Path, precision: str = "float32") -> Averaged:
    """source: a run's folder, for its newest checkpoint, or a checkpoint in it. Nothing in the folder is changed."""
    path = _newest(source) if source.is_dir() else source
    run = path.resolve().parent.parent
    if not (run / CONFIG).is_file():
        raise WeightsError(f"{path}: no {run / CONFIG}, which says what was trained; leave it in its run's folder")
    config = load_config(run / CONFIG)
    state = _read(path)
    lower: Any = {"precision": precision}
    settings = replace(build.network_configs(config)[0], **lower)
    with torch.device("meta"):  # without storage: what is read takes its place
        conditioning = build.conditioning_config(config, build.text_width(config))
        generator = PortraitGenerator(TriPlaneGenerator(settings), conditioning)
    tensors = {k.removeprefix(_PREFIX): v for k, v in state["state_dict"].items() if k.startswith(_PREFIX)}
    store.check_tensors(generator, tensors, str(path))
    store.check_finite(tensors, str(path))
    generator.load_state_dict(tensors, strict=True, assign=True)
    return Averaged(generator.eval().requires_grad_(False), TextSource(config.text.clip), path, int(state["images"]))


def _newest(run: Path) -> Path:
    found = saved_checkpoints(run / CHECKPOINTS)
    if not found:
        raise WeightsError(f"{run / CHECKPOINTS} holds no checkpoint; train on, or name another run")
    return found[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict) or "images" not in state:
            raise ValueError("it holds no state of a training")
    except Exception as error:  # a damaged archive raises whatever its damage leads to
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path} is no checkpoint of a training, or is damaged: {reason}; name another") from None
    return state

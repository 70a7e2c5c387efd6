"""CLIP models by source.

    mini/clip-a                       the miniature world's
    ViT-H-14:laion2b_s32b_b79k        a model of open_clip and its pretrained weights, from the hub or its cache
    ViT-H-14:/path/a.safetensors      the same with weights in a file
    /path/to/folder                   with open_clip_config.json and open_clip_model.safetensors, as on the hub

Weights are read from safetensors files alone.
"""

from pathlib import Path
from typing import Any, NamedTuple

import open_clip  # type: ignore[import-untyped]
import safetensors
import torch
from huggingface_hub import hf_hub_download
from torch import nn

from dreamportrait.text.encoder import TextEncoder
from dreamportrait.weights import registry
from dreamportrait.weights.errors import WeightsError

_SUFFIX = ".safetensors"
_SAFE, _CONFIG = f"open_clip_model{_SUFFIX}", "open_clip_config.json"
_FORMS = "a name of the registry (mini/clip-a), open_clip's MODEL:PRETRAINED, MODEL:FILE.safetensors, or a folder"


class Clip(NamedTuple):
    """In eval mode, without gradients for its weights."""

    model: Any  # an open_clip model
    tokenizer: Any


def load_clip(source: str, offline: bool = False, device: torch.device | str = "cpu") -> Clip:
    """offline: weights of the hub must be in its cache already."""
    if source in registry.NAMES:
        model, tokenizer = registry.from_pretrained(source)
    elif Path(source).is_dir():
        if missing := [name for name in (_CONFIG, _SAFE) if not (Path(source) / name).exists()]:
            raise WeightsError(f"{source} has no {' and no '.join(missing)}; give {_FORMS}")
        model = _create(source, f"local-dir:{source}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{source}")
    else:
        name, colon, pretrained = source.partition(":")
        if not colon or name not in open_clip.list_models():
            raise WeightsError(f"CLIP {source!r} is no folder, and no model and weights of open_clip; give {_FORMS}")
        weights, quick_gelu = _find(name, pretrained, offline)
        model = _create(source, name, pretrained=weights, force_quick_gelu=quick_gelu)
        tokenizer = open_clip.get_tokenizer(name)
    return Clip(model.to(device).eval().requires_grad_(False), tokenizer)


def load_text_encoder(source: str, offline: bool = False, device: torch.device | str = "cpu") -> TextEncoder:
    """The text tower alone."""
    model, tokenizer = load_clip(source, offline)
    model.visual = None  # most of the model
    return TextEncoder(model.to(device), tokenizer)


def _find(name: str, pretrained: str, offline: bool) -> tuple[str, bool]:
    """The file with the weights, and whether they were trained with the quick kind of GELU."""
    if pretrained.endswith(_SUFFIX):
        if not Path(pretrained).is_file():
            raise WeightsError(f"{pretrained} is not there; give {_FORMS}")
        return pretrained, False
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config.get("hf_hub"):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise WeightsError(f"{name} has no weights {pretrained!r}; give a {_SUFFIX} file or one of {known}")
    repository, _, file = config["hf_hub"].rpartition("/")
    file = Path(file).stem + _SUFFIX if file else _SAFE
    try:
        path = hf_hub_download(repository, file, local_files_only=offline)
    except (OSError, ValueError) as error:  # what the hub raises derives from these
        why = (
            "is not in the hub's cache, and nothing may be fetched (offline)" if offline else f"not to be had: {error}"
        )
        raise WeightsError(
            f"{file} of {repository} {why}; run once online, or download it and give {name}:FILE"
        ) from None
    return path, bool(config.get("quick_gelu", False))


def _create(source: str, *name: str, **settings: Any) -> nn.Module:
    try:
        model: nn.Module = open_clip.create_model(*name, require_pretrained=True, **settings)
    except (RuntimeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"CLIP {source} cannot be loaded: {error}") from None
    return model

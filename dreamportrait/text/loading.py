"""CLIP models by source.

    mini/clip-a                       a small CLIP of the miniature world
    ViT-H-14:laion2b_s32b_b79k        a model of open_clip and its pretrained weights, from the hub or its cache
    ViT-H-14:/path/a.safetensors      the same with weights from a file
    /path/to/folder                   a folder with open_clip_config.json and open_clip_model.safetensors, or a small
                                      CLIP that dreamportrait.mini.train wrote

Weights are read from safetensors files only. open_clip is imported inside the functions that need it, because the
import takes seconds and the text towers of the miniature world do not need it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.schema import from_dict
from dreamportrait.text import compact_clip
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.weights import registry

_SUFFIX = ".safetensors"
_SAFE, _CONFIG = f"open_clip_model{_SUFFIX}", "open_clip_config.json"
_FORMS = "a name of the registry (mini/clip-a), open_clip's MODEL:PRETRAINED, MODEL:FILE.safetensors, or a folder"


class Clip(NamedTuple):
    """A model in eval mode, without gradients for its weights."""

    model: Any  # an open_clip model
    tokenizer: Any


def load_clip(source: str, offline: bool = False, device: torch.device | str = "cpu") -> Clip:
    """Load a CLIP by its source. `offline`: weights from the hub must already be in its cache."""
    if (small := _small(source)) is not None:
        return Clip(compact_clip.load(small).to(device), compact_clip.tokenizer())
    import open_clip  # type: ignore[import-untyped]

    if Path(source).is_dir():
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
    """Load the text tower alone."""
    if (small := _small(source)) is not None:
        return TextEncoder(compact_clip.load_text(small).to(device), compact_clip.tokenizer())
    model, tokenizer = load_clip(source, offline)
    model.visual = None  # most of the model
    return TextEncoder(model.to(device), tokenizer)


def _small(source: str) -> Path | None:
    """Return the folder of a small CLIP of the miniature world, shipped or trained anew. None = another kind."""
    if source in registry.NAMES:
        return registry.locate(source)
    folder = Path(source)
    trained = (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
    return folder if trained and not (folder / _CONFIG).exists() else None


def _find(name: str, pretrained: str, offline: bool) -> tuple[str, bool]:
    """Return the file with the weights, and whether they were trained with the fast approximation of GELU."""
    import open_clip
    from huggingface_hub import hf_hub_download

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
    except (OSError, ValueError) as error:  # base classes of the hub's errors
        why = (
            "is not in the hub's cache, and nothing may be fetched (offline)" if offline else f"is unavailable: {error}"
        )
        raise WeightsError(
            f"{file} of {repository} {why}; run once online, or download it and give {name}:FILE"
        ) from None
    return path, bool(config.get("quick_gelu", False))


def _create(source: str, *name: str, **settings: Any) -> nn.Module:
    import open_clip

    try:
        model: nn.Module = open_clip.create_model(*name, require_pretrained=True, **settings)
    except (RuntimeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"CLIP {source} cannot be loaded: {error}") from None
    return model


def text_width(source: str) -> int:
    """Return the number of channels of a model's text features, without loading the model."""
    if (small := _small(source)) is not None:
        values = json.loads((small / "config.json").read_text(encoding="utf-8"))
        return int(values["model"]["text_width"])
    if Path(source).is_dir():
        path = Path(source) / "open_clip_config.json"
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]["width"])
        except (OSError, ValueError, KeyError, TypeError):
            raise WeightsError(f"{path} is not there, or names no width of the text tower") from None
    return int(_open_clip_config(source)["text_cfg"]["width"])


def empty_clip(source: str) -> nn.Module:
    """Build a model without storage, to count its parameters."""
    with torch.device("meta"):
        if (small := _small(source)) is not None:
            values = json.loads((small / "config.json").read_text(encoding="utf-8"))
            model: nn.Module = compact_clip.build(from_dict(compact_clip.ClipConfig, values["model"], source))
            return model
        import open_clip

        if Path(source).is_dir():
            values = json.loads((Path(source) / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        else:
            values = _open_clip_config(source)
        kind = open_clip.CustomTextCLIP if values.pop("custom_text", False) else open_clip.CLIP
        return kind(**{name: values[name] for name in ("embed_dim", "vision_cfg", "text_cfg")})


def _open_clip_config(source: str) -> dict[str, Any]:
    """Return the sizes of a MODEL:PRETRAINED, as open_clip knows them."""
    import open_clip

    name = source.partition(":")[0]
    if ":" not in source or (values := open_clip.get_model_config(name)) is None:
        raise WeightsError(f"CLIP {source!r} is no name, no folder and no MODEL:PRETRAINED of open_clip")
    return dict(values)

"""Checks that a folder has the layout of a Stable Diffusion model of diffusers, without loading weights.

FOLDER/unet/ vae/                config.json, diffusion_pytorch_model.safetensors
FOLDER/scheduler/                scheduler_config.json
FOLDER/text_encoder/ tokenizer/  or a config.json that names the model that embeds prompts (miniature model)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from dreamportrait.core.errors import WeightsError, shown

CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
VARIANTS = (None, "fp16")  # None = full precision, which is preferred; half precision is cast when loaded
CONVERT = "convert it with diffusers: from_single_file(...) or from_pretrained(...), then save_pretrained(FOLDER)"
PREDICTIONS = ("epsilon", "v_prediction")


class LayoutError(WeightsError):
    """A folder is not a Stable Diffusion folder of diffusers; the message lists everything that is missing or wrong."""


@dataclass(frozen=True)
class Layout:
    folder: Path
    variants: dict[str, str | None]  # file variant of the weights of each part
    words: str | None  # the model that embeds prompts. None = the folder's own text encoder
    text_width: int  # size of the token embeddings that the UNet reads
    sample_size: int  # height and width of latents
    prediction: str


def read_layout(folder: Path) -> Layout:
    """Read and check the layout of a folder. Raise LayoutError with all problems at once."""
    if folder.is_file():
        raise LayoutError(f"{folder} is a file; a folder of diffusers is needed: {CONVERT}")
    if not folder.is_dir():
        raise LayoutError(f"{folder} is not there; name a Stable Diffusion folder of diffusers")
    problems: list[str] = []
    words = _json(folder, "config.json", problems).get("text_encoder") if (folder / "config.json").exists() else None
    parts = ("unet", "vae") if words else ("unet", "vae", "text_encoder")
    variants = {part: _weights(folder, part, problems) for part in parts}
    configs = {part: _json(folder, f"{part}/config.json", problems) for part in parts}
    schedule = _json(folder, "scheduler/scheduler_config.json", problems)
    if not words and not _has_tokenizer(folder / "tokenizer"):
        problems.append("missing tokenizer/tokenizer.json (or vocab.json and merges.txt)")
    for part, name in CLASSES.items():
        if (found := configs[part].get("_class_name", name)) != name:
            problems.append(f"{part}/config.json is of a {shown(str(found))}, not of a {name}")
    prediction = schedule.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        problems.append(f"prediction_type {shown(str(prediction))} is none of {', '.join(PREDICTIONS)}")
    text_width, sample_size = (_whole(configs["unet"], key, problems) for key in ("cross_attention_dim", "sample_size"))
    if problems:
        raise LayoutError(f"{folder} is no Stable Diffusion folder of diffusers: {'; '.join(problems)}")
    return Layout(folder, variants, words, text_width, sample_size, prediction)


def _weights(folder: Path, part: str, problems: list[str]) -> str | None:
    for variant in VARIANTS:
        path = folder / part / ".".join(filter(None, (STEMS[part], variant, "safetensors")))
        if path.exists():
            try:
                with safetensors.safe_open(path, framework="pt"):
                    return variant
            except (safetensors.SafetensorError, OSError) as error:
                cause = f"{part}/{path.name} cannot be read ({error})"
                problems.append(f"{cause}; it is damaged, or a pointer of git-lfs: fetch it again")
                return None
    pickles = sorted(path.name for path in (folder / part).glob("*.bin"))
    remedy = f" ({pickles[0]} is a pickle and never read; save with safe_serialization=True)" if pickles else ""
    problems.append(f"missing {part}/{STEMS[part]}.safetensors{remedy}")
    return None


def _json(folder: Path, name: str, problems: list[str]) -> dict[str, Any]:
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"missing {name}")
    except (ValueError, RecursionError) as error:
        problems.append(f"{name} is no JSON: {error}")
    else:
        if isinstance(values, dict):
            return values
        problems.append(f"{name} holds no object")
    return {}


def _whole(config: dict[str, Any], key: str, problems: list[str]) -> int:
    value = config.get(key)
    if config and (not isinstance(value, int) or value < 1):
        problems.append(f"unet/config.json: {key}={value!r} is no positive whole number")
    return value if isinstance(value, int) else 0


def _has_tokenizer(folder: Path) -> bool:
    if (folder / "tokenizer.json").exists():
        return True
    return all((folder / name).exists() for name in ("vocab.json", "merges.txt"))

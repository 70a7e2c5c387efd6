"""Reading and writing a diffusers folder without a text tower, in half precision."""

import copy
import json
from pathlib import Path

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from dreamportrait.core.files import honour_umask

_MISSING = "{path} is not there; train the stages in order, the VAE first, or name a complete folder"
TEXT = "mini/clip-a"


def make_scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule. Sampling starts at pure noise and ends at the prediction itself."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        steps_offset=1,  # unused with this spacing, but required by diffusers' pipeline
    )


def save_vae(vae: AutoencoderKL, folder: Path) -> None:
    _save_half(vae, folder / "vae")


def save_unet(unet: UNet2DConditionModel, folder: Path, text: str = TEXT, prediction: str = "epsilon") -> None:
    """Write the rest of the folder: the UNet, the noise schedule and the index.

    text: the model that embeds prompts. prediction: what the UNet predicts, "epsilon" or "v_prediction".
    """
    _save_half(unet, folder / "unet")
    make_scheduler(prediction).save_pretrained(folder / "scheduler")
    absent = ("text_encoder", "tokenizer", "feature_extractor", "image_encoder", "safety_checker")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        **dict.fromkeys(absent, [None, None]),
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)
    note = "prompts are embedded by this model; see dreamportrait.mini.diffusion"
    _write_json(folder / "config.json", {"format_version": 1, "text_encoder": text, "note": note})


def load_vae(folder: Path) -> AutoencoderKL:
    """Load the VAE in single precision and eval mode, without gradients for its weights."""
    _check(folder / "vae" / "config.json")
    return AutoencoderKL.from_pretrained(folder, subfolder="vae", local_files_only=True).float().requires_grad_(False)


def load_diffusion(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, DDIMScheduler]:
    """Load UNet, VAE and noise schedule, in single precision and eval mode, without gradients for the weights."""
    for part in ("unet/config.json", "scheduler/scheduler_config.json"):
        _check(folder / part)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    return unet.float().requires_grad_(False), load_vae(folder), scheduler


def _save_half(network: AutoencoderKL | UNet2DConditionModel, folder: Path) -> None:
    """Write a network in half precision, without the folder that it was read from, which diffusers would name."""
    copy.deepcopy(network).half().save_pretrained(folder, safe_serialization=True)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_json(folder / "config.json", {key: value for key, value in values.items() if key != "_name_or_path"})
    honour_umask(*folder.glob("*.safetensors"))


def _check(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(_MISSING.format(path=path))


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

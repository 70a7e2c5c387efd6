"""Tools of the baselines with stand-ins: a diffusion model that knows a grey for each prompt, a CLIP of brightness."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from tiny_pipeline import write_portrait
from tiny_training import GENERATOR
from torch import Tensor

from dreamportrait.baselines.config import Baselines
from dreamportrait.baselines.tools import Tools
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.metrics.oracle import Oracle
from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.prior.space import WSpace
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.text.clip_scorer import ClipScorer

DARK, BRIGHT = "a dark face", "a bright face"
GREYS = {DARK: -0.6, BRIGHT: 0.6, "": 0.0}
SETTINGS: dict[str, Any] = {
    "model": "MODEL",
    "pretrained": "PRETRAINED",
    "diffusion": "DIFFUSION",
    "clip": "CLIP",
    "sds": {"steps": 40, "rate": 0.05, "scale": 1, "t_min": 0.1, "t_max": 0.9, "smooth": 0, "opaque": 0},
    "sjc": {"steps": 40, "rate": 0.05, "scale": 1, "t_min": 0.1, "t_max": 0.9, "smooth": 0, "opaque": 0},
    "sds_w": {"steps": 40, "rate": 0.2, "scale": 1, "t_min": 0.1, "t_max": 0.9, "leash": 0},
    "clip_w": {"steps": 40, "rate": 0.2, "leash": 0, "copies": 2},
    "lifting": {"sampling_steps": 2, "scale": 1, "steps": 3, "tuning_steps": 10},
}


def config(**changes: dict[str, Any]) -> Baselines:
    """Return settings. `changes` updates sections by name."""
    return Baselines.model_validate(SETTINGS | {name: SETTINGS[name] | new for name, new in changes.items()})


class GreyPrior:
    """The ideal denoiser of a world where each prompt has one plain picture. Latents are small pictures."""

    latent_shape = (3, 4, 4)
    alphas_cumprod = make_scheduler().alphas_cumprod

    def __init__(self) -> None:
        self.asked: list[float] = []  # guidance scales

    def embed(self, prompts: list[str]) -> Tensor:  # [N, 1, 1]
        return torch.tensor([GREYS[prompt] for prompt in prompts])[:, None, None]

    def encode(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4)

    def predict(self, noisy: Tensor, t: Tensor, words: Tensor, null_words: Tensor, guidance_scale: float) -> Tensor:
        self.asked.append(guidance_scale)
        a = self.alphas_cumprod[t][:, None, None, None]
        return (noisy - a.sqrt() * words[..., None]) / (1 - a).sqrt()


class Brightness:
    """A scorer whose features are angles: pictures by their mean, prompts by their grey."""

    def image_features(self, images: Tensor) -> Tensor:  # [N, 2]
        return self._unit(images.mean((1, 2, 3)))

    def text_features(self, prompts: list[str]) -> Tensor:
        return self._unit(torch.tensor([GREYS[prompt] for prompt in prompts]))

    def _unit(self, values: Tensor) -> Tensor:
        angle = values.atan()  # grows with the value and never wraps
        return torch.stack([angle.cos(), angle.sin()], 1)


class Half:
    """An oracle that knows one attribute, which every second picture shows."""

    names = ("hat",)

    def judge(self, images: Tensor, numbers: list[int]) -> Tensor:
        return torch.tensor([[float(number % 2 == 0)] for number in numbers])


def tools(folder: Path, **changes: Any) -> Tools:
    """Return tools with a random generator and a tiny pipeline."""
    torch.manual_seed(0)
    generator = TriPlaneGenerator(replace(GENERATOR, camera_pivot=(0.0, 0.0, 0.0))).eval().requires_grad_(False)
    pipe = DreamPortraitPipeline.from_pretrained(write_portrait(folder / "MODEL"))
    given: dict[str, Any] = {
        "generator": generator,
        "space": WSpace(generator.config.w_dim),
        "pipe": pipe,
        "see": None,
        "prior": cast(StableDiffusion, GreyPrior()),
        "scheduler": cast(Any, SimpleNamespace()),
        "scorer": cast(ClipScorer, Brightness()),
        "cameras": generator.config.around([-10.0, 0.0, 10.0]),
        "device": torch.device("cpu"),
    }
    return Tools(**given | changes)


def oracle() -> Oracle:
    return cast(Oracle, Half())

"""One edit, one pretraining step and one tuning step of the free-style system, in full size or small, random weights.

Full size is EG3D's FFHQ 512, H of 32 x 32 x 256, and a UNet and VAE as InstructPix2Pix has them.

    python tests/support/full_size_styles.py full        on the CPU; prints times, peak memory and faulty gradients
"""

import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tiny_freestyle import GENERATOR
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.architectures import make_unet, make_vae
from dreamportrait.mini.diffusion import unet as mini_unet
from dreamportrait.mini.diffusion import vae as mini_vae
from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.systems.freestyle.adapted import LowRankNetwork
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.pretraining import (
    PretrainSettings,
    draw_cameras,
    draw_pairs,
    pretraining_losses,
)
from dreamportrait.systems.freestyle.prompts import Wording
from dreamportrait.systems.freestyle.tuning import TuneSettings, tuning_losses


@dataclass(frozen=True)
class Sizes:
    generator: GeneratorConfig
    network: dict[str, int]
    words: tuple[int, int]  # tokens and channels of text features
    full: bool


SIZES = {
    "full": Sizes(GeneratorConfig(), {}, (77, 768), full=True),
    "small": Sizes(GENERATOR, {"code_size": 8, "code_channels": 8}, (5, 6), full=False),
}


def make_editor(sizes: Sizes) -> InstructPix2Pix:
    with torch.device("meta"):  # only its configuration is used
        parent = make_unet("sd-1.5") if sizes.full else mini_unet.make_unet(sizes.words[1], (8, 16))
    config = {**parent.config, "in_channels": 2 * parent.config["in_channels"]}
    unet = cast(UNet2DConditionModel, UNet2DConditionModel.from_config(config))
    vae: AutoencoderKL = make_vae() if sizes.full else mini_vae.make_vae((2, 4, 6))

    def embed(prompts: list[str]) -> Tensor:
        return torch.randn(len(prompts), *sizes.words)

    return InstructPix2Pix(unet, vae, make_scheduler().alphas_cumprod, "epsilon", embed)


def faulty(module: torch.nn.Module) -> dict[str, list[str]]:
    """Return the trained weights without a gradient, and those whose gradient is not finite."""
    given = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    lost = [name for name, gradient in given.items() if gradient is None]
    return {"no": lost, "bad": [name for name, x in given.items() if x is not None and not x.isfinite().all()]}


def run(size: str) -> dict[str, Any]:
    sizes = SIZES[size]
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        found[f"{name}, seconds"], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

    generator = TriPlaneGenerator(sizes.generator)
    styled = PictureTo3D(ImageToTriplane(I2TConfig.fitting(sizes.generator, **sizes.network)), generator)
    found["parameters of H"] = sum(p.numel() for p in styled.i2t.parameters())
    lap("building")

    settings = PretrainSettings(batch=1)
    pairs = draw_pairs(generator, 1, settings.truncation)
    losses = pretraining_losses(styled, pairs, settings, draw_cameras(generator, 1, settings.yaw, settings.pitch))
    torch.stack(list(losses.values())).sum().backward()
    found["pretraining"] = {name: float(loss.detach()) for name, loss in losses.items()} | faulty(styled.i2t)
    styled.i2t.zero_grad(set_to_none=True)
    lap("pretraining")

    deltas, tuning = LowRankNetwork(styled.i2t, 4, 0), TuneSettings(views=1)
    views, camera = pairs.front, draw_cameras(generator, 1, 30, 30)
    losses = tuning_losses(styled, deltas, pairs.front, views, camera, tuning)
    torch.stack(list(losses.values())).sum().backward()
    found["tuning"] = {name: float(loss.detach()) for name, loss in losses.items()} | faulty(deltas)
    found["frozen"] = all(p.grad is None for p in (*generator.parameters(), *styled.i2t.parameters()))
    lap("tuning")

    editor = make_editor(sizes)
    lap("building the editor")
    told = Wording().instruct("a gold statue")
    made = editor.edit(pairs.front, told, editor.fixed_noise(0), Sampling(steps=1, start=None))
    found["edited"] = {"shape": list(made.images.shape), "finite": bool(made.images.isfinite().all())}
    lap("an edit of one step")
    found["peak memory, GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    return found


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))

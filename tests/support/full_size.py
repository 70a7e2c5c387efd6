"""One step of stage 2 in the sizes of the paper's configuration, or in small ones, with random weights.

Lightning's trainer runs the step of configs/dreamportrait/celebatext_hq_paper.yaml: the generator's update with
adversarial loss and guidance, the discriminator's update, both regularisers, and the update of the average.

    python tests/support/full_size.py full        a real step on the CPU, one picture; prints its time and peak memory
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import open_clip
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from places import ROOT
from tiny_training import DISCRIMINATOR, GENERATOR, fit
from torch import Tensor, nn

from dreamportrait.data.dataset import Batch, Conditions, Words
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import orbit
from dreamportrait.guidance.architectures import make_unet, make_vae
from dreamportrait.guidance.guides import DiffusionGuide
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.mini.diffusion import unet as mini_unet
from dreamportrait.mini.diffusion import vae as mini_vae
from dreamportrait.systems.dreamportrait.balance import GAN, GUIDANCE
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.full_size import VIT_H, text_tower
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.text.encoder import TextEncoder

YAML = ROOT / "configs" / "dreamportrait" / "celebatext_hq_paper.yaml"
PROMPTS = ["a young woman with long blond hair", "an old man with a grey beard and glasses"]
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Sizes:
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    unet: Callable[[], UNet2DConditionModel]
    vae: Callable[[], AutoencoderKL]
    text: dict[str, Any]  # settings of the text tower, in open_clip's names


SIZES = {
    "full": Sizes({}, {}, lambda: make_unet("sd-2.0-base"), make_vae, VIT_H["text_cfg"]),
    "small": Sizes(
        {name: value for name, value in vars(GENERATOR).items() if name != "precision"} | {"sr_noise": "none"},
        {name: value for name, value in vars(DISCRIMINATOR).items() if name != "precision"},
        lambda: mini_unet.make_unet(16, (8, 16)),
        lambda: mini_vae.make_vae((2, 4, 6)),
        {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    ),
}


class Networks(NamedTuple):
    portrait: PortraitGenerator
    critic: Critic
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    clip: nn.Module


def make_config(batch: int, accumulate: int, precision: str) -> Config:
    changes = [f"data.batch={batch}", f"optim.lr_batch={batch}", f"stages.1.accumulate={accumulate}"]
    changes += [f"trainer.precision={precision}"]
    return load_config(YAML, changes)


def make_networks(sizes: Sizes, config: Config) -> Networks:
    lower: Any = {"precision": config.trainer.precision}
    conditioning = ConditioningConfig(**vars(config.model.conditioning), text_width=sizes.text["width"])
    generator = TriPlaneGenerator(GeneratorConfig(**sizes.generator, **lower))
    return Networks(
        PortraitGenerator(generator, conditioning),
        Critic(DualDiscriminator(DiscriminatorConfig(**sizes.discriminator, **lower)), sizes.text["width"]),
        nn.Module.to(sizes.unet(), DTYPES[config.trainer.precision]),  # diffusers' own `to` logs a warning
        sizes.vae(),
        text_tower(sizes.text),
    )


@dataclass
class Seen:
    """Shapes and gradients recorded in a step."""

    shapes: dict[str, tuple[torch.dtype, list[int]]] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)  # the last one of each parameter

    def note(self, **tensors: Tensor) -> None:
        self.shapes |= {name: (value.dtype, list(value.shape)) for name, value in tensors.items()}


class WatchedModule(DreamPortraitModule):
    def watch(self) -> Seen:
        self.seen = Seen()
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p, name=name: self._keep(name, p))
        return self.seen

    def _keep(self, name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.seen.gradients[name] = parameter.grad.detach()

    def portray(self, *arguments: Any) -> Any:
        planes, fake = super().portray(*arguments)
        self.seen.note(planes=planes, **fake._asdict())
        return planes, fake

    def _apply(self, *arguments: Any) -> "WatchedModule":  # type: ignore[override]
        return self  # Lightning moves modules to the CPU and back, but fake tensors cannot be moved


def make_step(networks: Networks, config: Config) -> tuple[WatchedModule, Batch]:
    """Return the module at the start of stage 2, where both regularisers are due, and its batch."""
    portrait, critic, unet, vae, clip = networks
    encoder = TextEncoder(clip, open_clip.get_tokenizer("ViT-H-14"))
    schedule = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    prior = StableDiffusion(
        *(unet, vae, schedule.alphas_cumprod, "epsilon", lambda prompts: encoder.encode(prompts, shorten=False).words),
        checkpoint=config.guidance.checkpoint,
    )
    module = WatchedModule(portrait, critic, config, DiffusionGuide(prior, config.guidance))
    seen = module.watch()
    prior.unet.register_forward_pre_hook(lambda unet, given: seen.note(noisy=given[0], words=given[2]))
    prior.vae.encoder.register_forward_hook(lambda encoder, given, out: seen.note(pictures=given[0], moments=out))
    critic.register_forward_hook(lambda critic, given, out: seen.note(logits=out))
    first = config.stages[0].images
    every = config.data.batch * config.loss.r1_every * config.loss.density_every
    module.images = (first // every + 1) * every
    module.balance.add({GAN: 1.0, GUIDANCE: 1.0})  # measured at the start of the stage; fake tensors have no values
    return module, make_batch(config, encoder, portrait.config.image_resolution)


def make_batch(config: Config, encoder: TextEncoder, resolution: int) -> Batch:
    n = config.data.batch
    words = [Words(i, 0, PROMPTS[i % 2]) for i in range(n)]
    camera = orbit([-10.0 * i for i in range(n)], 0, 2.7, (0, 0, 0.2))
    text = encoder.encode([each.prompt for each in words], shorten=False)
    real, asked = Conditions(camera, words, text), Conditions(camera.flip(0), words, text)
    return Batch(torch.randint(256, (n, 3, resolution, resolution), dtype=torch.uint8), real, asked)


def run(size: str) -> dict[str, Any]:
    """Run a real step with one picture and return its time, peak memory, losses and faulty gradients."""
    torch.manual_seed(0)
    config = make_config(1, 1, "float32")
    started = time.perf_counter()
    networks = make_networks(SIZES[size], config)
    module, batch = make_step(networks, config)
    made = time.perf_counter()
    fit(module, data=[batch])
    moving = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    gradients = module.seen.gradients
    return {
        "building, seconds": round(made - started, 1),
        "step, seconds": round(time.perf_counter() - made, 1),
        "peak memory, GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "threads": torch.get_num_threads(),
        "losses": {name: float(loss) for name, loss in module.losses.items()},
        "no gradient": [name for name in moving if name not in gradients],
        "not finite": [name for name, gradient in gradients.items() if not gradient.isfinite().all()],
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
